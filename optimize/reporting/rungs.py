"""The report's account of how the search went: each trial rung by rung, and where it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optimize.evaluation.outcome import Entry
from optimize.inference.statistics import mean_and_stderr
from optimize.reporting.blocks import Chart, Paragraph, Section, Table
from optimize.reporting.charts import same
from optimize.reporting.curves import Curve, rung_chart
from optimize.reporting.headline import MISSING, number, signed
from optimize.reporting.record import Record
from optimize.reporting.trials import is_partial
from optimize.searching.point import questions_a_step

MOST = 40
"""Curves that are drawn: those of the trials that were asked most."""


def rungs(record: Record) -> Section | None:
    """Each trial's gain over the baseline after so many questions; None without trials whose rows are there."""
    outcome = record.outcome
    base = record.scores(outcome.baseline)
    whole = outcome.baseline.summary.n
    step = questions_a_step(whole)
    ranked = sorted(outcome.trials, key=lambda e: (not _won(record, e), -e.summary.n, -(e.estimate or 0.0), e.unit))
    known = [(entry, _curve(record, entry, base, step)) for entry in ranked[:MOST]]
    drawn = [(entry, curve) for entry, curve in known if curve is not None]
    if not drawn:
        return None
    partial = sum(is_partial(entry, outcome) for entry in outcome.trials)
    asked = f"The search asks {step} questions at a time and goes on with the trial that they teach most about"
    ended = (
        f"{partial} of {len(outcome.trials):,} trials ended before all {whole} questions. That is a matter of where "
        "calls were spent; it is not shown that those trials are worse."
    )
    told = [f"{asked}: {ended if partial else f'here all trials were asked all {whole}.'}"]
    if len(drawn) < len(outcome.trials):
        told.append(f"The {len(drawn)} that were asked most are drawn.")
    caption = (
        "Mean score of each trial minus the baseline's on the same questions. Trials begin at different questions of "
        "one order, so two curves are over different questions until both were asked all; that is why each is drawn "
        "against the baseline on its own. Hollow: ended early. The winner has ± one standard error."
    )
    label = f"Gain over the baseline of {len(drawn)} trials after so many questions"
    chart = Chart(
        rung_chart(
            [curve for _, curve in drawn],
            [*range(0, whole + step, step)],
            f"{outcome.metric} above the baseline",
            label,
        ),
        caption,
    )
    table = _table(record, drawn, base, step, whole)
    return Section("How the search went", (Paragraph(" ".join(told)), Chart(chart.svg, caption, table)))


def _won(record: Record, entry: Entry) -> bool:
    winner = record.outcome.winner
    return winner is not None and same(entry, winner)


def _gaps(record: Record, entry: Entry, base: dict[str, float]) -> list[tuple[str, float]]:
    """Trial minus baseline in the order in which the trial was asked, where both have a score."""
    return [(i, score - base[i]) for i, score in record.scores(entry).items() if i in base]


def _curve(record: Record, entry: Entry, base: dict[str, float], step: int) -> Curve | None:
    gaps = _gaps(record, entry, base)
    ends = _ends(len(gaps), step)
    if not ends:
        return None
    values = [value for _, value in gaps]
    clusters = record.clusters([i for i, _ in gaps])
    points = tuple((end, sum(values[:end]) / end) for end in ends)
    won = _won(record, entry)
    errors = tuple(_error(values[:end], clusters[:end]) for end in ends) if won else ()
    whole = not is_partial(entry, record.outcome)
    return Curve("winner" if won else entry.unit, "winner" if won else "trial", points, whole, errors)


def _ends(asked: int, step: int) -> list[int]:
    """After how many questions a rung ends; the last may be short."""
    return [*range(step, asked, step), asked] if asked else []


def _error(values: Sequence[float], clusters: Sequence[str]) -> float:
    error = mean_and_stderr(values, clusters)[1]
    return 0.0 if math.isnan(error) else error


def _table(
    record: Record, drawn: Sequence[tuple[Entry, Curve]], base: dict[str, float], step: int, whole: int
) -> Table:
    """The mean score itself after each rung, and the gain after the last."""
    ends = _ends(whole, step)
    rows = []
    for entry, curve in drawn:
        scores = list(record.scores(entry).values())
        means = [number(sum(scores[:end]) / end) if end <= len(scores) else MISSING for end in ends]
        end = number(sum(scores) / len(scores))
        rows.append((entry.unit, *means, str(entry.summary.n), end, signed(curve.points[-1][1])))
    header = ("trial", *(f"score after {end}" for end in ends), "asked", "score at its end", "above the baseline")
    marked = frozenset(n for n, (entry, _) in enumerate(drawn) if _won(record, entry))
    return Table(header, tuple(rows), frozenset(range(1, len(header))), marked, "Scores rung by rung")
