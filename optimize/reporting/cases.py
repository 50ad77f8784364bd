"""The report's questions won and lost, side by side with what the LM was shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from optimize.data.example import Example, gold_text
from optimize.evaluation.evaluate import Row
from optimize.reporting.blocks import Block, Case, Excerpt, Fold, Paragraph, Section, Side
from optimize.reporting.funnel import LOST, Funnels
from optimize.reporting.headline import number
from optimize.reporting.insight_funnel import GOLD, Fate
from optimize.reporting.record import Record
from programs.types import Document, Span

CASES = 5
"""Most questions shown at once as won, and as lost."""

FOLDED = 15
"""Further ones that are folded away."""

PASSAGES = 3
"""Most passages shown of each side."""

LONGEST = 600
"""Most characters of a passage; around its gold where it has any."""


def cases(record: Record, found: Funnels) -> Section | None:
    """Test questions on which the two differ most; None before the test, and where the questions are gone."""
    outcome = record.outcome
    if outcome.test_baseline is None or outcome.test_winner is None or record.dataset is None:
        return None
    old, new = record.rows(outcome.test_baseline), record.rows(outcome.test_winner)
    gaps = {i: _gap(old[i], new[i]) for i in old if i in new and i in record.examples and _both_scored(old[i], new[i])}
    won = sorted((i for i in gaps if gaps[i] > 0), key=lambda i: (-gaps[i], i))
    lost = sorted((i for i in gaps if gaps[i] < 0), key=lambda i: (gaps[i], i))
    blocks: list[Block] = [
        Paragraph(
            f"Of {len(gaps)} test questions that both answered the winner does better on {len(won)}, worse on "
            f"{len(lost)}, and as well on {len(gaps) - len(won) - len(lost)}. Single questions are here to be "
            "understood, not to be counted."
        )
    ]
    fates = {name: one.fates for name, one in found.items()}
    for title, ids in (("Won", won), ("Lost", lost)):
        made = [_case(record, i, old[i], new[i], fates, n == 0) for n, i in enumerate(ids[: CASES + FOLDED])]
        if made:
            blocks += [Paragraph(f"{title} most clearly:"), *made[:CASES]]
        if len(made) > CASES:
            blocks.append(Fold(f"{title} too: {len(made) - CASES} more", tuple(made[CASES:])))
        if len(ids) > len(made):
            blocks.append(Paragraph(f"{len(ids) - len(made)} more are not shown; the folder evaluations has all."))
    return Section("Questions won and lost", tuple(blocks))


def _both_scored(one: Row, other: Row) -> bool:
    return one.score is not None and other.score is not None


def _gap(old: Row, new: Row) -> float:
    return (new.score or 0.0) - (old.score or 0.0)


def _case(
    record: Record, example_id: str, old: Row, new: Row, fates: Mapping[str, Mapping[str, Fate]], is_open: bool
) -> Case:
    example = record.examples[example_id]
    sides = [
        _side(name, row, example, record.documents, fates.get(name, {}).get(example_id))
        for name, row in (("baseline", old), ("winner", new))
    ]
    return Case(example.question, gold_text(example), tuple(sides), is_open)


def _side(name: str, row: Row, example: Example, documents: Mapping[str, Document], fate: Fate | None) -> Side:
    known = [span for span in row.spans if span.doc_id in documents]
    passages = tuple(excerpt(span, example, documents[span.doc_id]) for span in known[:PASSAGES])
    score, left_out = number(row.score or 0.0, 2), len(row.spans) - len(passages)
    return Side(name, row.answer or "(nothing)", score, _remark(row, fate), passages, left_out)


def _remark(row: Row, fate: Fate | None) -> str:
    if GOLD not in row.measures:
        return ""
    if row.measures[GOLD] == 1:
        return "gold: all handed over"
    return f"gold: {LOST[fate or 'retrieval']}"


def excerpt(span: Span, example: Example, document: Document) -> Excerpt:
    """A passage with its gold marked; a long one is cut to what surrounds the gold."""
    gold = _merged(
        (max(span.start, place.span.start), min(span.end, place.span.end))
        for fact in example.evidence
        for place in fact
        if place.span.overlap(span)
    )
    start, end = _window(span, gold)
    parts: list[tuple[str, bool]] = []
    at = start
    for first, last in gold:
        if first >= end:
            break
        parts += [(document.text[at:first], False), (document.text[first : min(last, end)], True)]
        at = min(last, end)
    parts.append((document.text[at:end], False))
    cut = [("… ", False)] * (start > span.start), [(" …", False)] * (end < span.end)
    kept = [part for part in (*cut[0], *parts, *cut[1]) if part[0]]
    return Excerpt(f"{span.doc_id}, {span.start:,}–{span.end:,}", tuple(kept))  # noqa: RUF001


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that do not touch, in order."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _window(span: Span, gold: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The part of a passage that is shown."""
    if len(span) <= LONGEST:
        return span.start, span.end
    if not gold:
        return span.start, span.start + LONGEST
    before = max(0, LONGEST - (gold[-1][1] - gold[0][0])) // 2
    start = max(span.start, min(gold[0][0] - before, span.end - LONGEST))
    return start, min(span.end, max(start + LONGEST, min(gold[-1][1], start + 2 * LONGEST)))
