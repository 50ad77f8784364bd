"""The report's account of how the search went: each trial rung by rung, and where it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optimize.evaluation.outcome import Entry
from optimize.inference.statistics import mean_and_stderr
from optimize.reporting.blocks import Chart, Paragraph, Section, Table
from optimize.reporting.curves import Curve, rung_chart
from optimize.reporting.headline import MISSING, number, signed
from optimize.reporting.record import Record
from optimize.reporting.settings import same
from optimize.reporting.trials import is_partial
from optimize.searching.point import questions_a_step

MOST = 40
"""Curves that are drawn: those of the trials that were asked most."""


@dataclass(frozen=True)
class _Asked:
    """What a trial was asked, in its order: the score of each question, and that minus the baseline's."""

    entry: Entry
    scores: Sequence[float | None]
    gaps: Sequence[float | None]
    groups: Sequence[str]

    def means(self, values: Sequence[float | None], step: int) -> list[tuple[int, float]]:
        """Questions asked so far, and the mean over those of them that have a value, after each rung."""
        ends = [*range(step, len(values), step), len(values)] if values else []
        found = [(end, [value for value in values[:end] if value is not None]) for end in ends]
        return [(end, sum(known) / len(known)) for end, known in found if known]

    def error(self, end: int) -> float:
        """Standard error of the mean gap over the first questions; 0 where it is not known."""
        known = [(gap, group) for gap, group in zip(self.gaps[:end], self.groups, strict=False) if gap is not None]
        error = mean_and_stderr([gap for gap, _ in known], [group for _, group in known])[1]
        return 0.0 if math.isnan(error) else error


def rungs(record: Record) -> Section | None:
    """Each trial's gain over the baseline after so many questions; None without trials whose rows are there."""
    outcome = record.outcome
    whole = outcome.baseline.summary.n
    step = questions_a_step(whole)
    ranked = sorted(
        outcome.trials, key=lambda e: (not same(e, outcome.winner), -e.summary.n, -(e.estimate or 0.0), e.unit)
    )
    base = record.scores(outcome.baseline)
    every = [_asked(record, entry, base) for entry in ranked[:MOST]]
    drawn = [one for one in every if any(gap is not None for gap in one.gaps)]
    if not drawn:
        return None
    curves = [_curve(record, one, step) for one in drawn]
    unit, label = f"{outcome.metric} above the baseline", f"Gain over the baseline of {len(drawn)} trials after so many"
    svg = rung_chart(curves, [*range(0, whole + step, step)], unit, f"{label} questions")
    caption = (
        "Mean score of each trial minus the baseline's on the same questions. Trials begin at different questions of "
        "one order, so two curves are over different questions until both were asked all; that is why each is drawn "
        "against the baseline on its own. Hollow: ended early."
    )
    if any(curve.spread for curve in curves):
        caption += " The winner has ± one standard error."
    chart = Chart((svg,), caption, _table(record, drawn, step, whole))
    return Section("How the search went", (Paragraph(_told(record, step, len(drawn))), chart))


def _asked(record: Record, entry: Entry, base: dict[str, float]) -> _Asked:
    rows = record.rows(entry)
    scores = [row.score for row in rows.values()]
    gaps = [None if row.score is None or i not in base else row.score - base[i] for i, row in rows.items()]
    return _Asked(entry, scores, gaps, [record.groups.get(i, i) for i in rows])


def _told(record: Record, step: int, drawn: int) -> str:
    outcome, whole = record.outcome, record.outcome.baseline.summary.n
    partial = sum(is_partial(entry, outcome) for entry in outcome.trials)
    asked = f"The search asks {step} questions at a time and goes on with the trial that they teach most about"
    if record.study.minimize:
        asked += ", every other time for the trade-off of score and prompt tokens"
    ended = (
        f"{partial} of {len(outcome.trials):,} trials ended before all {whole} questions. That is a matter of where "
        "calls were spent; it is not shown that those trials are worse."
    )
    told = f"{asked}: {ended if partial else f'here all trials were asked all {whole}.'}"
    return told if drawn == len(outcome.trials) else f"{told} The {drawn} that were asked most are drawn."


def _curve(record: Record, one: _Asked, step: int) -> Curve:
    won = same(one.entry, record.outcome.winner)
    points = tuple(one.means(one.gaps, step))
    # Without the data set it is not known which questions belong together, and so no error either.
    errors = tuple(one.error(end) for end, _ in points) if won and record.dataset is not None else ()
    name = "winner" if won else one.entry.unit
    return Curve(name, "winner" if won else "trial", points, not is_partial(one.entry, record.outcome), errors)


def _table(record: Record, drawn: Sequence[_Asked], step: int, whole: int) -> Table:
    """The mean score itself after each rung, and the gain after the last."""
    ends = [*range(step, whole, step), whole]
    rows = []
    for one in drawn:
        means = dict(one.means(one.scores, step))
        cells = [number(means[end]) if end in means else MISSING for end in ends]
        last, gain = list(means.values())[-1], one.means(one.gaps, step)[-1][1]
        rows.append((one.entry.unit, *cells, str(one.entry.summary.n), number(last), signed(gain)))
    header = ("trial", *(f"score after {end}" for end in ends), "asked", "score at its end", "above the baseline")
    marked = frozenset(n for n, one in enumerate(drawn) if same(one.entry, record.outcome.winner))
    return Table(header, tuple(rows), frozenset(range(1, len(header))), marked, "Scores rung by rung")
