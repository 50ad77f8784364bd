"""The report's tables of entries: every trial of the search, and the finalists."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.blocks import Block, Bullets, Fold, Paragraph, Section, Table
from optimize.reporting.charts import same
from optimize.reporting.headline import believed, is_known, number, per_question, with_error

AT_ONCE, MOST = 12, 200
"""Trials in a table that stands open, and in one at all: the best ones."""

_ENTRY_HEADER = (
    "estimate",
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
_NUMBERS = 7
"""Of these, so many are numbers; the others are settings."""

_ENTRY_NUMERIC = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14})


def _entry_table(first: str, rows: Sequence[tuple[str, Entry]], marked: frozenset[int]) -> Table:
    return Table(
        (first, *_ENTRY_HEADER), tuple((name, *_entry_cells(entry)) for name, entry in rows), _ENTRY_NUMERIC, marked
    )


def _entry_cells(entry: Entry) -> tuple[str, ...]:
    c, s = entry.config, entry.summary
    return (
        believed(entry),
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
    """Everything that the search tried, the baseline first; of very many the best, in the order they were tried."""
    kept = sorted(outcome.trials, key=lambda entry: (not _is_winner(entry, outcome), -_rank(entry), entry.unit))[:MOST]
    in_order = sorted(kept, key=lambda entry: entry.unit)
    rows = [("baseline", outcome.baseline), *((entry.unit, entry) for entry in in_order)]
    winner = outcome.winner
    best = trial_of(outcome, winner) if winner is not None else outcome.best_trial
    marked = frozenset(position for position, (_, entry) in enumerate(rows) if entry is best)
    blocks: list[Block] = [Paragraph(_how_asked(outcome))] if outcome.trials else []
    if outcome.winner is None and (said := optimism_text(outcome)) is not None:
        blocks.append(Paragraph(said))
    if (left_out := len(outcome.trials) - len(kept)) > 0:
        blocks.append(
            Paragraph(
                f"The table has the {len(kept)} with the highest estimates; the other {left_out:,} are in outcome.json."
            )
        )
    table = _entry_table("trial", rows, marked)
    blocks.append(table if len(rows) <= AT_ONCE else Fold(f"{len(rows) - 1} trials and the baseline", (table,)))
    notes = tuple(f"{name}: {entry.note}" for name, entry in rows if entry.note and not is_partial(entry, outcome))
    return Section("All trials", (*blocks, Bullets(notes)) if notes else tuple(blocks))


def _rank(entry: Entry) -> float:
    return entry.estimate if entry.estimate is not None and is_known(entry.estimate) else -math.inf


def is_partial(entry: Entry, outcome: Outcome) -> bool:
    """Whether the search asked a trial some of its questions only."""
    return entry.phase == "search" and entry.summary.n < outcome.baseline.summary.n


def _how_asked(outcome: Outcome) -> str:
    whole, partial = outcome.baseline.summary.n, sum(is_partial(entry, outcome) for entry in outcome.trials)
    how = (
        f"{partial} of {len(outcome.trials)} trials were asked fewer than all {whole} search questions (n): the search "
        "goes on where the next questions teach most, and that is no failure. "
        if partial
        else f"All trials were asked all {whole} search questions. "
    )
    return how + (
        "The estimate is what is believed of the score on all of them, ± one standard deviation; the score is as it "
        "was, on those that were asked, ± one standard error. Go by the estimate."
    )


def finalists(outcome: Outcome) -> Section | None:
    """The best few on questions that the search had not seen."""
    if not outcome.finalists:
        return None
    kept = outcome.kept_baseline
    names = ["baseline", *(f"finalist {n}" for n in range(1, len(outcome.finalists)))]
    chosen = [(kept and n == 0) or _is_winner(entry, outcome) for n, entry in enumerate(outcome.finalists)]
    blocks: list[Block] = []
    if outcome.choice:
        which = "the baseline" if kept else names[chosen.index(True)]
        blocks.append(Paragraph(f"Chosen: {which}, {outcome.choice}."))
    if any(is_known(entry.estimate) for entry in outcome.finalists):
        blocks.append(
            Paragraph(
                "The estimate joins the search and the confirm questions; ± is one standard deviation of the distance "
                "to the best estimate. Settings that all of them share are left out."
            )
        )
    header = ("", *(f"{name} (chosen)" if one else name for name, one in zip(names, chosen, strict=True)))
    columns = [_entry_cells(entry) for entry in outcome.finalists]
    rows = [(title, *cells) for title, *cells in zip(_ENTRY_HEADER, *columns, strict=True)]
    shown = tuple(row for n, row in enumerate(rows) if n < _NUMBERS or len(set(row[1:])) > 1)
    table = Table(header, shown, frozenset(range(1, len(header))))
    return Section("Finalists on the confirm questions", (*blocks, table))


def _is_winner(entry: Entry, outcome: Outcome) -> bool:
    return outcome.winner is not None and same(entry, outcome.winner)


def optimism_text(outcome: Outcome) -> str | None:
    """How far the best search score is expected to be too high; None where that is not known."""
    scored = [e for e in outcome.trials if e.summary.valid and not math.isnan(e.summary.score)]
    if outcome.optimism is None or math.isnan(outcome.optimism) or not scored:
        return None
    best = max(scored, key=lambda entry: entry.summary.score)
    return (
        f"The best search score as it stands is {number(best.summary.score)} ({best.unit}). It is expected to be too "
        f"high by about {number(outcome.optimism)}, because it is the best of {len(scored)}; its estimate is "
        f"{believed(best)}."
    )


def trial_of(outcome: Outcome, winner: Entry) -> Entry | None:
    """The winner as the search asked it; None where it has not."""
    return next((e for e in outcome.trials if same(e, winner)), None)
