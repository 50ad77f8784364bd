"""The report's tables of entries: every trial of the search, and the finalists."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.blocks import Block, Fold, Paragraph, Section, Table
from optimize.reporting.headline import believed, is_known, number, per_question, with_error
from optimize.reporting.settings import differing, same, setting_text

AT_ONCE, MOST = 12, 200
"""Trials in a table that stands open, and in one at all: the best ones."""

_NUMBERS = ("estimate", "score", "asked", "context tokens", "prompt tokens", "failures", "empty answers")
"""What is known of every entry; tokens are means of a question."""

_ABOUT = (
    "The estimate is what is believed of the score on all search questions, ± one standard deviation; the score is as "
    "it was, on those that were asked, ± one standard error. Go by the estimate. Settings that all share are left out."
)


def _columns(entries: Sequence[Entry]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles, and the cells of each entry: its numbers, and the settings that are not the same in all."""
    settings = list(differing([entry.params for entry in entries]))
    cells = [(*_numbers(entry), *(setting_text(entry.params[name]) for name in settings)) for entry in entries]
    return (*_NUMBERS, *settings), cells


def _numbers(entry: Entry) -> tuple[str, ...]:
    s = entry.summary
    tokens = number(s.context_tokens, 0), per_question(s.prompt_tokens, entry)
    return believed(entry), with_error(entry), str(s.n), *tokens, str(s.failures), str(s.empty_answers)


def trials(outcome: Outcome) -> Section:
    """Everything that the search tried, the baseline first; of very many the best, in the order they were tried."""
    kept = sorted(outcome.trials, key=lambda e: (not same(e, outcome.winner), -_rank(e), e.unit))[:MOST]
    entries = [outcome.baseline, *sorted(kept, key=lambda entry: entry.unit)]
    best = outcome.best_trial if outcome.winner is None else trial_of(outcome, outcome.winner)
    marked = frozenset(position for position, entry in enumerate(entries) if entry is best)
    blocks: list[Block] = [Paragraph(_ABOUT)] if outcome.trials else []
    if outcome.winner is None and (said := optimism_text(outcome)) is not None:
        blocks.append(Paragraph(said))
    if (left_out := len(outcome.trials) - len(kept)) > 0:
        blocks.append(
            Paragraph(
                f"The table has the {len(kept)} with the highest estimates; the other {left_out:,} are in outcome.json."
            )
        )
    titles, cells = _columns(entries)
    rows = tuple((entry.unit, *row) for entry, row in zip(entries, cells, strict=True))
    table = Table(("trial", *titles), rows, frozenset(range(1, 1 + len(_NUMBERS))), marked)
    shown = table if len(rows) <= AT_ONCE else Fold(f"{len(rows) - 1} trials and the baseline", (table,))
    return Section("All trials", (*blocks, shown))


def _rank(entry: Entry) -> float:
    return entry.estimate if entry.estimate is not None and is_known(entry.estimate) else -math.inf


def is_partial(entry: Entry, outcome: Outcome) -> bool:
    """Whether the search asked a trial some of its questions only."""
    return entry.phase == "search" and entry.summary.n < outcome.baseline.summary.n


def finalists(outcome: Outcome) -> Section | None:
    """The best few on questions that the search had not seen: the baseline, what was chosen, and the others."""
    if not outcome.finalists:
        return None
    base, *others = outcome.finalists
    named = [("baseline", base), *((f"finalist {n}", entry) for n, entry in enumerate(others, 1))]
    named.sort(key=lambda one: one[1] is not base and not same(one[1], outcome.winner))
    chosen = base if outcome.kept_baseline else outcome.winner
    names = [f"{name} (chosen)" if same(entry, chosen) else name for name, entry in named]
    blocks: list[Block] = []
    if outcome.choice:
        which = "the baseline" if chosen is base else next(name for name, entry in named if same(entry, chosen))
        blocks.append(Paragraph(f"Chosen: {which}, {outcome.choice}."))
    if any(is_known(entry.estimate) for entry in outcome.finalists):
        blocks.append(
            Paragraph(
                "The estimate joins the search and the confirm questions; ± is one standard deviation of the distance "
                "to the best estimate, one standard error of a score."
            )
        )
    titles, cells = _columns([entry for _, entry in named])
    table = Table(("", *names), tuple(zip(titles, *cells, strict=True)), frozenset(range(1, 1 + len(names))))
    return Section("Finalists on the confirm questions", (*blocks, table))


def optimism_text(outcome: Outcome) -> str | None:
    """How far a choice by search scores is expected to end too high; None where that is not known."""
    scored = [e for e in outcome.trials if e.summary.valid and not math.isnan(e.summary.score)]
    if outcome.optimism is None or math.isnan(outcome.optimism) or not scored:
        return None
    best = max(scored, key=lambda entry: entry.summary.score)
    return (
        f"The best search score as it stands is {number(best.summary.score)} ({best.unit}, asked {best.summary.n}). "
        f"Whoever takes the best of {len(scored)} by its score ends about {number(outcome.optimism)} too high; the "
        f"search goes by the estimate, here {believed(best)}."
    )


def trial_of(outcome: Outcome, winner: Entry) -> Entry | None:
    """The winner as the search asked it; None where it has not."""
    return next((e for e in outcome.trials if same(e, winner)), None)
