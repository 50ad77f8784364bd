"""A study's result in one sentence, and the numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimize.evaluation.outcome import Entry, Outcome
from optimize.inference.statistics import CONFIDENCE, PairedDifference

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
    if outcome.kept_baseline:
        return _kept(outcome)
    if outcome.winner is not None:
        return _chosen(outcome, outcome.winner)
    if outcome.finalists:
        return Headline(
            "no winner",
            "of every finalist too many confirm answers failed, or a guarded metric fell, so nothing was chosen.",
        )
    return _searched(outcome)


def _tested(outcome: Outcome, base: Entry, new: Entry) -> Headline:
    scores = (
        f"the winner scores {number(new.summary.score)} {outcome.metric} on {new.summary.n} test questions, "
        f"the baseline {number(base.summary.score)}"
    )
    difference = outcome.difference
    if outcome.verdict is None or difference is None:
        return Headline("void", f"{scores}, but {_unfair(base, new)}: the comparison says nothing.")
    gap = f"a difference of {gap_text(difference)}"
    remark = {
        "better": "",
        "worse": "; keep the baseline",
        "not shown better": f"; none is shown, though one of {number(difference.detectable)} mostly would have been",
        "underpowered": f"; {_too_little(difference)}",
    }[outcome.verdict]
    fallen = [guard for guard in outcome.guards if guard.state == "fell"]
    for guard in fallen:
        remark += (
            f"; but {guard.metric} fell by {number(-guard.difference.mean)}, more than the {guard.allowed:g} allowed"
        )
    word = "better, but a guard fell" if fallen and outcome.verdict == "better" else outcome.verdict
    return Headline(word, f"{scores}, {gap}{remark}.")


def gap_text(d: PairedDifference) -> str:
    """A difference with its interval, in words."""
    between = f"95 % interval {signed(d.low)} to {signed(d.high)}"
    return f"{signed(d.mean)} ({between}, {d.clusters} independent groups of questions)"


def _unfair(base: Entry, new: Entry | None = None) -> str:
    """Why the two cannot be compared."""
    faults = []
    if not (s := base.summary).answers:
        faults.append(f"the baseline failed on {s.failures} and answered {s.empty_answers} of {s.n} with nothing")
    if new is not None and not (s := new.summary).valid:
        faults.append(f"the winner failed on {s.failures} of {s.n}")
    return ", and ".join(faults) or "too much failed"


def _too_little(difference: PairedDifference) -> str:
    """Why nothing is shown. Interval and permutation test have to agree, and one of them alone shows nothing."""
    if difference.clusters < 2:
        return "all questions are of one group, and of one group nothing can be shown"
    if difference.low > 0 or difference.high < 0:
        return (
            "the interval leaves out 0, but the permutation test does not confirm it "
            f"({probability(difference.p_value)}), so nothing is shown"
        )
    if difference.p_value <= 1 - CONFIDENCE:
        return (
            f"the permutation test shows a difference ({probability(difference.p_value)}), but the interval does not "
            "confirm it, so nothing is shown"
        )
    return f"so few questions would show a difference of {number(difference.detectable)} or more only"


def _kept(outcome: Outcome) -> Headline:
    base = outcome.finalists[0]
    if outcome.verdict is None:
        return Headline("void", f"in confirm {_unfair(base)}, so nothing is shown. Give the study one that answers.")
    found = believed(base) if base.estimate is not None else f"it scores {number(base.summary.score)}"
    others = [entry for entry in outcome.finalists[1:] if is_known(entry.estimate)]
    best = max(others, key=lambda entry: entry.estimate or 0.0, default=None)
    beside = f", the best other one {believed(best)}" if best is not None else ""
    # A cheap baseline is kept although something else may be a little better.
    ahead = best is not None and base.estimate is not None and (best.estimate or 0.0) > base.estimate
    why = f"what you have is {outcome.choice}" if ahead else "nothing is expected to beat what you have"
    return Headline(
        "not shown better",
        f"after {base.summary.n} confirm questions {why} (baseline: {found} {outcome.metric}{beside}). Keep it; the "
        "test was not opened.",
    )


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
        raw = f"{number(best.summary.score)} on the {best.summary.n} questions that it was asked"
        said = f"believed to score {believed(best)} ({raw})" if best.estimate is not None else f"with {raw}"
        ahead = outcome.baseline.estimate is None or (best.estimate or 0.0) > outcome.baseline.estimate
        so_far = f"the best trial so far, of {len(outcome.trials)}, is {best.unit}, {said}"
        so_far += "" if ahead else f", no more than what is believed of the baseline, {believed(outcome.baseline)}"
    return Headline(
        "not confirmed",
        f"on {base.n} search questions the baseline scores {number(base.score)} {outcome.metric}, and {so_far}. "
        "Nothing was confirmed on other questions, so this is no verdict.",
    )


def number(value: float, digits: int = 3) -> str:
    """A rounded number; what is not known or without bound has a sign of its own."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.{digits}f}"


def finite(value: Any) -> Any:
    """Content for machines: a number that is not known or has no bound is null, which JSON has, and NaN it has not."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def probability(value: float) -> str:
    """A p-value with its sign; one that would round to nothing is bounded."""
    return "p < 0.001" if value < 0.001 else f"p = {number(value)}"


def signed(value: float) -> str:
    """A rounded difference with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def interval(d: PairedDifference) -> str:
    """A difference with its 95 % interval."""
    return f"{signed(d.mean)} [{signed(d.low)}, {signed(d.high)}]"


def metric_title(spec: str | Mapping[str, float]) -> str:
    """A study's metric by name, or a weighted sum in words."""
    return spec if isinstance(spec, str) else " + ".join(f"{weight:g} {name}" for name, weight in spec.items())


def is_known(estimate: float | None) -> bool:
    """Whether anything is believed of an entry; of one that fails too often nothing is."""
    return estimate is not None and math.isfinite(estimate)


def with_error(entry: Entry) -> str:
    """Score ± standard error."""
    return f"{number(entry.summary.score)} ± {number(entry.summary.stderr)}"


def with_interval(entry: Entry) -> str:
    """Score with its 95 % interval; with its standard error where no interval is known."""
    s = entry.summary
    if math.isnan(s.low):
        return with_error(entry)
    return f"{number(s.score)} [{number(s.low)}, {number(s.high)}]"


def believed(entry: Entry) -> str:
    """Estimate ± standard deviation: what is expected of the entry, which is not what it scored."""
    if entry.estimate is None or not is_known(entry.estimate):
        return MISSING
    return f"{number(entry.estimate)} ± {number(math.nan if entry.spread is None else entry.spread)}"


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
