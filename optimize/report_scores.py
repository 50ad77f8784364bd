"""The report's scores: baseline against winner, phase by phase, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from optimize.headline import MISSING, number, per_question, probability, score_interval, signed, with_error
from optimize.outcome import Entry, Outcome
from optimize.report_blocks import Block, Bullets, Chart, Paragraph, Section, Table
from optimize.report_charts import Dot, interval_chart, trial_chart
from optimize.run_records import SCORED_ON


def comparison(outcome: Outcome) -> Section:
    """Baseline against winner, on the latest examples that both were scored on."""
    base, new = _opponents(outcome)
    header = ("", "baseline", new[0]) if new else ("", "baseline")
    entries = [base, new[1]] if new else [base]
    rows = tuple(_comparison_rows(outcome, entries))
    differ = frozenset(n for n, row in enumerate(rows) if row[0] in base.params and len(set(row[1:])) > 1)
    blocks: list[Block] = [Table(header, rows, numeric=frozenset({1, 2}), marked=differ)]
    if (chart := _test_chart(outcome)) is not None:
        blocks.insert(0, chart)
    if outcome.difference is not None:
        d = outcome.difference
        blocks.append(
            Paragraph(
                f"Winner minus baseline on the same {d.n} questions: {signed(d.mean)}, 95 % interval {signed(d.low)} "
                f"to {signed(d.high)}, {probability(d.p_value)} by sign flips of {d.clusters} groups of questions. "
                f"A test of this size shows a true difference of {number(d.detectable)} with 80 % power."
            )
        )
        blocks.append(Paragraph(_openings(outcome.test_openings)))
    return Section("Baseline and winner", tuple(blocks))


def _openings(count: int) -> str:
    if count <= 1:
        return "The test questions of this state of the data were opened once, for this verdict."
    return (
        f"The test questions of this state of the data have been opened {count} times, this time included. Each "
        "further look makes a chance find more likely; new questions would be a fresh test."
    )


def _opponents(outcome: Outcome) -> tuple[Entry, tuple[str, Entry] | None]:
    if outcome.test_baseline is not None and outcome.test_winner is not None:
        return outcome.test_baseline, ("winner", outcome.test_winner)
    if outcome.winner is not None and outcome.finalists:
        return outcome.finalists[0], ("winner", outcome.winner)
    best = outcome.best_trial
    return outcome.baseline, ("best trial so far", best) if best is not None else None


def _comparison_rows(outcome: Outcome, entries: Sequence[Entry]) -> Iterator[tuple[str, ...]]:
    phase = SCORED_ON[entries[0].phase]
    clusters = outcome.difference.clusters if outcome.difference is not None else 0

    def interval(entry: Entry) -> str:
        found = score_interval(entry, clusters)
        return f"{number(entry.summary.score)} [{number(found[0])}, {number(found[1])}]" if found else with_error(entry)

    yield (f"{outcome.metric} on {phase}", *(interval(entry) for entry in entries))
    yield ("questions", *(str(entry.summary.n) for entry in entries))
    yield ("prompt tokens a question", *(per_question(entry.summary.prompt_tokens, entry) for entry in entries))
    yield ("context tokens a question", *(number(entry.summary.context_tokens, 0) for entry in entries))
    yield ("seconds a question, median", *(number(entry.summary.latency_p50, 2) for entry in entries))
    yield ("failures", *(str(entry.summary.failures) for entry in entries))
    yield ("empty answers", *(str(entry.summary.empty_answers) for entry in entries))
    for name in entries[0].summary.measures:
        yield (name, *(number(entry.summary.measures.get(name, math.nan)) for entry in entries))
    for name in entries[0].params:
        yield (name, *(str(entry.params[name]) for entry in entries))


def _test_chart(outcome: Outcome) -> Chart | None:
    pair = (("baseline", outcome.test_baseline), ("winner", outcome.test_winner))
    clusters = outcome.difference.clusters if outcome.difference is not None else 0
    dots = []
    for kind, entry in pair:
        interval = score_interval(entry, clusters) if entry is not None else None
        if entry is None or interval is None:
            return None
        dots.append(Dot(kind, entry.summary.score, *interval, kind))
    caption = (
        "Each score on the test questions with its own 95 % interval. The two were asked the same questions, so their "
        "difference is known better than the overlap of the intervals suggests."
    )
    return Chart(interval_chart(dots, f"{outcome.metric} on test"), caption)


def phases(outcome: Outcome) -> Section | None:
    """The scores of baseline and winner from phase to phase."""
    if outcome.winner is None:
        return None
    found: dict[str, tuple[Entry | None, Entry | None]] = {
        "search": (outcome.baseline, _trial_of(outcome, outcome.winner)),
        "confirm": (outcome.finalists[0] if outcome.finalists else None, outcome.winner),
        "test": (outcome.test_baseline, outcome.test_winner),
    }
    rows = tuple(
        (name, str(base.summary.n) if base else MISSING, *(with_error(e) if e else MISSING for e in (base, new)))
        for name, (base, new) in found.items()
    )
    remark = (
        "The search score of a winner is the best of many and so too high by chance; confirm chose among few; only the "
        "test says what to expect. ± is one standard error, with the questions of one group counted as dependent."
    )
    table = Table(("phase", "questions", "baseline", "winner"), rows, numeric=frozenset({1, 2, 3}))
    return Section("From phase to phase", (table, Paragraph(remark)))


def _trial_of(outcome: Outcome, winner: Entry) -> Entry | None:
    return next((e for e in outcome.trials if (e.config, e.candidate) == (winner.config, winner.candidate)), None)


_ENTRY_HEADER = (
    "score",
    "n",
    "context tokens",
    "prompt tokens",
    "failed",
    "empty",
    "splitter",
    "chunk size",
    "overlap",
    "retriever",
    "retrieve_k",
    "reranker",
    "top_k",
    "format",
    "candidate",
)
_ENTRY_NUMERIC = frozenset({1, 2, 3, 4, 5, 6, 8, 9, 11, 13})


def _entry_table(first: str, rows: Sequence[tuple[str, Entry]], marked: frozenset[int]) -> Table:
    return Table(
        (first, *_ENTRY_HEADER), tuple((name, *_entry_cells(entry)) for name, entry in rows), _ENTRY_NUMERIC, marked
    )


def _entry_cells(entry: Entry) -> tuple[str, ...]:
    c, s = entry.config, entry.summary
    return (
        with_error(entry),
        str(s.n),
        number(s.context_tokens, 0),
        per_question(s.prompt_tokens, entry),
        str(s.failures),
        str(s.empty_answers),
        c.splitter,
        str(c.chunk_size),
        f"{c.chunk_overlap:g}",
        c.retriever,
        str(c.retrieve_k),
        c.reranker,
        str(c.top_k),
        c.prompt_format,
        entry.candidate,
    )


def trials(outcome: Outcome) -> Section:
    """Everything that the search tried, the baseline first."""
    rows = [("baseline", outcome.baseline), *((entry.unit, entry) for entry in outcome.trials)]
    winner = outcome.winner
    best = _trial_of(outcome, winner) if winner is not None else outcome.best_trial
    marked = frozenset(position for position, (_, entry) in enumerate(rows) if entry is best)
    blocks: list[Block] = []
    if (svg := trial_chart(outcome)) is not None:
        caption = (
            "Each point is a trial on the search questions; the line is the best score to be had for so many tokens "
            "of passages. Point at a mark for its setting."
        )
        blocks.append(Chart(svg, caption))
    blocks.append(_entry_table("trial", rows, marked))
    notes = tuple(f"{name}: {entry.note}" for name, entry in rows if entry.note)
    return Section("All trials", (*blocks, Bullets(notes)) if notes else tuple(blocks))


def finalists(outcome: Outcome) -> Section | None:
    """The best few on questions that the search had not seen."""
    if not outcome.finalists:
        return None
    names = ["baseline", *(f"finalist {n}" for n in range(1, len(outcome.finalists)))]
    rows = list(zip(names, outcome.finalists, strict=True))
    marked = frozenset(n for n, entry in enumerate(outcome.finalists) if entry == outcome.winner)
    return Section("Finalists on the confirm questions", (_entry_table("", rows, marked),))
