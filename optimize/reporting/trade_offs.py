"""The report's trade-offs: what quality costs, as far as it is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optimize.evaluation.outcome import Entry, Outcome, Summary
from optimize.inference.pareto import Losses, front, knee
from optimize.reporting.blocks import Block, Chart, Paragraph, Section, Table
from optimize.reporting.charts import Mark, trade_off_chart
from optimize.reporting.headline import believed, is_known, number
from optimize.reporting.settings import describe, same


@dataclass(frozen=True, slots=True)
class Cost:
    """What a question costs with a configuration.

    Attributes:
        title: In words, with its unit.
        of: A summary's mean or median of a question; NaN where it is not known.
        digits: As many are shown.
    """

    title: str
    of: Callable[[Summary], float]
    digits: int


MOST_MARKS = 300
"""Trials that are drawn: those on the front, then those with the highest estimates."""

COSTS: Mapping[str, Cost] = {
    "prompt_tokens": Cost("prompt tokens a question", lambda s: s.prompt_tokens / max(1, s.n), 0),
    "context_tokens": Cost("context tokens a question", lambda s: s.context_tokens, 0),
    "usd": Cost("USD a question", lambda s: math.nan if s.usd is None else s.usd / max(1, s.n), 6),
    "latency_s": Cost("seconds a question, median", lambda s: s.latency_p50, 2),
}
"""Cost, by the name that a study's `minimize` has for it."""


def trade_offs(outcome: Outcome, tolerance: float, cost: str = "prompt_tokens") -> Section | None:
    """What no other trial beats in estimate and cost at once; None where the search has no estimates.

    Args:
        outcome: What was found.
        tolerance: What a cheaper one may lose.
        cost: A name in `COSTS`.
    """
    known = COSTS[cost] if _priced(outcome, COSTS[cost]) else COSTS["prompt_tokens"]
    entries = [e for e in (outcome.baseline, *outcome.trials) if e.summary.valid and is_known(e.estimate)]
    if all(entry.phase == "baseline" for entry in entries):
        return None
    losses = np.array([[known.of(entry.summary), -_estimate(entry)] for entry in entries])
    best = sorted(front(losses), key=lambda place: tuple(losses[place]))
    remarks = _remarks(losses[best], tolerance)
    rows = tuple(_row(outcome, entries[place], known, remarks.get(n, "")) for n, place in enumerate(best))
    marked = frozenset(n for n, place in enumerate(best) if same(entries[place], outcome.winner))
    header = ("trial", "estimate", known.title, "asked", "", "setting")
    table = Table(header, rows, numeric=frozenset({1, 2, 3}), marked=marked)
    blocks: list[Block] = [_chart(outcome, entries, best, known), Paragraph(_ABOUT), table]
    return Section("Trade-offs", (*blocks, Paragraph(_rules(tolerance, any("knee" in r for r in remarks.values())))))


_ABOUT = (
    "No other trial beats these in estimate and cost at once. ± is one standard deviation of what is believed: where "
    "two overlap, the order of the two is not known."
)


def _rules(tolerance: float, has_knee: bool) -> str:
    cheap = f"Cheapest: the cheapest whose estimate is no more than {tolerance:g} (tolerance) below the best one."
    if not has_knee:
        return cheap
    return (
        f"{cheap} Knee: furthest beyond the straight line from the cheapest to the best, over the logarithm of the "
        "cost (Branke and others 2004); past it more cost buys less."
    )


def _remarks(losses: Losses, tolerance: float) -> dict[int, str]:
    """What is to be said of a front's rows, by rising cost: the last one is the best."""
    cheap = next(place for place, loss in enumerate(losses[:, 1]) if loss <= losses[-1, 1] + tolerance + 1e-9)
    said: dict[int, list[str]] = {}
    said.setdefault(len(losses) - 1, []).append("best estimate")
    said.setdefault(cheap, []).append("cheapest within tolerance")
    bulge = knee(np.stack([losses[:, 1], np.log(np.maximum(losses[:, 0], 1e-9))], axis=1))
    if 0 < bulge < len(losses) - 1:
        said.setdefault(bulge, []).append("knee")
    return {place: ", ".join(words) for place, words in said.items()}


def _row(outcome: Outcome, entry: Entry, cost: Cost, remark: str) -> tuple[str, ...]:
    if same(entry, outcome.winner):
        remark = f"{remark}, winner" if remark else "winner"
    asked = f"{entry.summary.n} of {outcome.baseline.summary.n}"
    return (entry.unit, believed(entry), number(cost.of(entry.summary), cost.digits), asked, remark, _setting(entry))


def _setting(entry: Entry) -> str:
    return f"{describe(entry.config)}, {entry.config.prompt_format}, {entry.candidate}"


def _drawn(outcome: Outcome, entries: Sequence[Entry], best: Sequence[int]) -> list[Entry]:
    """What is drawn of very many: the front, baseline and winner, and of the others the best."""

    def after(place: int) -> tuple[bool, float]:
        needed = place in best or _kind(outcome, entries[place]) != "trial"
        return not needed, -_estimate(entries[place])

    chosen = sorted(range(len(entries)), key=after)[:MOST_MARKS]
    return [entries[place] for place in sorted(chosen)]


def _chart(outcome: Outcome, every: Sequence[Entry], best: Sequence[int], cost: Cost) -> Chart:
    entries = _drawn(outcome, every, best)
    marks = [
        Mark(
            cost.of(entry.summary),
            _estimate(entry),
            kind,
            f"{entry.unit}: {believed(entry)}, {number(cost.of(entry.summary), cost.digits)}; {_setting(entry)}",
            entry.spread or 0.0,
            entry.summary.n < outcome.baseline.summary.n,
            "" if kind == "trial" else kind,
        )
        for entry in entries
        for kind in [_kind(outcome, entry)]
    ]
    trials = sum(mark.kind != "baseline" for mark in marks)
    label = f"Estimate against {cost.title} for {trials} trials"
    caption = (
        "Each point is a trial with what is believed of its score on all search questions, ± one standard deviation; "
        "fainter ones were asked only some of them. The line is the best estimate to be had for so much. Point at a "
        "mark for its setting."
    )
    if len(entries) < len(every):
        caption += f" Of {len(every):,} the {len(entries)} on the front or with the highest estimates are drawn."
    return Chart((trade_off_chart(marks, cost.title, f"{outcome.metric}, estimate", label),), caption)


def _priced(outcome: Outcome, cost: Cost) -> bool:
    return all(math.isfinite(cost.of(entry.summary)) for entry in (outcome.baseline, *outcome.trials))


def _kind(outcome: Outcome, entry: Entry) -> str:
    if entry.phase == "baseline":
        return "baseline"
    return "winner" if same(entry, outcome.winner) else "trial"


def _estimate(entry: Entry) -> float:
    assert entry.estimate is not None, "entries without one are left out"
    return entry.estimate
