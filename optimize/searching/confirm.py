"""The choice: a few finalists and the baseline on questions that the search has not seen.

Both looks count. The search's scores of a finalist are those of a winner of many and so too high by chance; the belief
draws them back, and what it then says is joined with the new questions, of which there are few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation
from optimize.searching.belief import Asked, Belief, Described
from optimize.searching.point import Bench, Point

ONE_SIDED = 1.645
"""Normal quantile of 95 %."""


@dataclass(frozen=True)
class Choice:
    """What confirm ends with.

    Attributes:
        place: Which of the contenders was chosen.
        estimates: What is believed of each contender: mean score over all questions of both phases, and the standard
            deviation of its difference to the best.
        why: In words.
    """

    place: int
    estimates: tuple[tuple[float, float], ...]
    why: str


def choose(
    bench: Bench,
    asked: Sequence[Point],
    contenders: Sequence[Point],
    confirmed: Sequence[Evaluation],
    examples: Mapping[str, Sequence[Example]],
    costs: Sequence[float],
    tolerance: float,
) -> Choice:
    """Choose among the contenders: the cheapest that is shown to lose no more than `tolerance`, else the best.

    Args:
        bench: Foresees retrieval.
        asked: All points that the search asked anything.
        contenders: Those that were asked the confirm questions, in order of preference where nothing else tells.
        confirmed: Their answers to these.
        examples: The `search` and the `confirm` questions.
        costs: What a question costs with each contender, in any unit.
        tolerance: In units of the score.
    """
    belief, described = _belief(bench, asked, contenders, confirmed, examples)
    values, design = belief.about(described)
    best = int(np.argmax(np.round(values, 9)))
    gaps = design[best] - design
    spreads = np.sqrt(belief.variances(gaps))
    estimates = tuple((float(value), float(spread)) for value, spread in zip(values, spreads, strict=True))
    bounds = values[best] - values + ONE_SIDED * spreads
    near = [place for place in range(len(contenders)) if place != best and bounds[place] <= tolerance]
    cheapest = min([best, *near], key=lambda place: (costs[place], place != best))
    if cheapest != best:
        return Choice(
            cheapest,
            estimates,
            f"the cheapest of {1 + len(near)} that lose no more than {tolerance:g} to the best (95 %)",
        )
    return Choice(best, estimates, f"the best estimate: no cheaper one is shown to lose no more than {tolerance:g}")


def _belief(
    bench: Bench,
    asked: Sequence[Point],
    contenders: Sequence[Point],
    confirmed: Sequence[Evaluation],
    examples: Mapping[str, Sequence[Example]],
) -> tuple[Belief, list[Described]]:
    """The belief over the questions of both phases, and the contenders as it sees them."""
    first, every = len(examples["search"]), [*examples["search"], *examples["confirm"]]
    described = {
        point.key: replace(point.described, signals=bench.foresee(point.config, every))
        for point in [*asked, *contenders]
    }
    scores = [
        Asked(described[point.key], found.questions, found.scores) for point in asked for found in [point.asked()]
    ]
    for point, evaluation in zip(contenders, confirmed, strict=True):
        rows = [(first + place, row.score) for place, row in enumerate(evaluation.rows) if row.score is not None]
        places = np.array([place for place, _ in rows], dtype=np.int64)
        scores.append(Asked(described[point.key], places, np.array([score for _, score in rows], dtype=float)))
    return Belief(scores, len(every)), [described[point.key] for point in contenders]


def mean_cost(evaluation: Evaluation, name: str) -> float:
    """What a question costs on average; NaN where a price is not known."""
    if name == "usd":
        usd = evaluation.usd
        return math.nan if usd is None else usd / max(1, len(evaluation.rows))
    return evaluation.total(name) / max(1, len(evaluation.rows))
