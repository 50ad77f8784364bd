"""A study's result in one sentence, and the numbers as people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optimize.outcome import Entry, Outcome
from optimize.statistics import CONFIDENCE

MISSING = "—"
"""Stands where a number is not known."""


@dataclass(frozen=True, slots=True)
class Headline:
    """The result.

    Attributes:
        word: The verdict, or where the study stands without one.
        detail: Its numbers: a sentence without its capital.
    """

    word: str
    detail: str

    @property
    def sentence(self) -> str:
        """Both on one line."""
        return f"{self.word.capitalize()}: {self.detail}"


def headline(outcome: Outcome) -> Headline:
    """Say how the study ended, or how far it is."""
    if outcome.test_winner is not None and outcome.test_baseline is not None:
        return _tested(outcome, outcome.test_baseline, outcome.test_winner)
    if outcome.winner is not None:
        return _chosen(outcome, outcome.winner)
    if outcome.finalists:
        return Headline("no winner", "no finalist answered enough of the confirm questions, so nothing was chosen.")
    return _searched(outcome)


def _tested(outcome: Outcome, base: Entry, new: Entry) -> Headline:
    scores = (
        f"the winner scores {number(new.summary.score)} {outcome.metric} on {new.summary.n} test questions, "
        f"the baseline {number(base.summary.score)}"
    )
    difference = outcome.difference
    if outcome.verdict is None or difference is None:
        return Headline("void", f"{scores}, but too many answers failed for a comparison.")
    gap = (
        f"a difference of {signed(difference.mean)} (95 % interval {signed(difference.low)} to "
        f"{signed(difference.high)}, {difference.clusters} independent groups of questions)"
    )
    remark = {
        "better": "",
        "worse": "; keep the baseline",
        "not shown better": "; the interval does not rule out that there is none",
        "underpowered": f"; so few questions would show a difference of {number(difference.detectable)} or more only",
    }[outcome.verdict]
    return Headline(outcome.verdict, f"{scores}, {gap}{remark}.")


def _chosen(outcome: Outcome, winner: Entry) -> Headline:
    base = outcome.finalists[0].summary.score if outcome.finalists else math.nan
    return Headline(
        "not tested yet",
        f"on {winner.summary.n} confirm questions the winner scores {number(winner.summary.score)} "
        f"{outcome.metric}, the baseline {number(base)}.",
    )


def _searched(outcome: Outcome) -> Headline:
    base = outcome.baseline.summary
    if (best := outcome.best_trial) is None:
        so_far = "no trial has enough answers yet"
    else:
        so_far = f"the best trial so far, of {len(outcome.trials)}, {number(best.summary.score)}, an optimistic number"
    return Headline(
        "not confirmed yet",
        f"on {base.n} search questions the baseline scores {number(base.score)} {outcome.metric}, and {so_far}.",
    )


def score_interval(entry: Entry, clusters: int) -> tuple[float, float] | None:
    """The two-sided 95 % interval of a mean score by t over clusters, within [0, 1]; None where it is not known."""
    from scipy import special

    summary = entry.summary
    if clusters < 2 or math.isnan(summary.stderr):
        return None
    half = float(special.stdtrit(clusters - 1, (1 + CONFIDENCE) / 2)) * summary.stderr
    return max(0.0, summary.score - half), min(1.0, summary.score + half)


def number(value: float, digits: int = 3) -> str:
    """A rounded number; what is not known or without bound has a sign of its own."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.{digits}f}"


def probability(value: float) -> str:
    """A p-value with its sign; one that would round to nothing is bounded."""
    return "p < 0.001" if value < 0.001 else f"p = {number(value)}"


def signed(value: float) -> str:
    """A rounded difference with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def with_error(entry: Entry) -> str:
    """Score ± standard error."""
    return f"{number(entry.summary.score)} ± {number(entry.summary.stderr)}"


def per_question(total: float, entry: Entry) -> str:
    """A total as a mean over the entry's questions."""
    return number(total / entry.summary.n, 0) if entry.summary.n else MISSING


def money(usd: float | None) -> str:
    """Dollars; a price that is not known is not zero."""
    return "price not known" if usd is None else f"{usd:,.4f} USD" if 0 < usd < 1 else f"{usd:,.2f} USD"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the largest two."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
