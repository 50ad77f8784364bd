"""Where the next calls teach most: the knowledge gradient per cost.

A step asks one point a few more questions. What it may teach is how much better the point that would be chosen
afterwards is expected to be than the one that would be chosen now (Frazier, Powell and Dayanik 2009, "The
Knowledge-Gradient Policy for Correlated Normal Beliefs"): a step on a point that cannot overtake the best, or that is
known well enough, teaches nothing; a step on a point that shares its settings with many teaches about all of them. The
most is bought where that, divided by the cost, is largest, so that cheap points go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimize.searching.belief import Belief, Described, Floats

_OUTCOMES = np.linspace(-5.0, 5.0, 81)
_CHANCES = np.exp(-(_OUTCOMES**2) / 2) / np.exp(-(_OUTCOMES**2) / 2).sum()


@dataclass(frozen=True, slots=True)
class Step:
    """Something that could be asked next.

    Attributes:
        place: Which of the points.
        questions: Positions of the questions to ask.
        cost: In any unit, above 0.
    """

    place: int
    questions: NDArray[np.int64]
    cost: float


def best_step(
    belief: Belief, points: Sequence[Described], values: Floats, design: Floats, steps: Sequence[Step]
) -> int:
    """Position of the step that buys most; of equal ones the first.

    Args:
        belief: What is known.
        points: All points that may be chosen in the end.
        values: What each is worth by the belief; the mean score, or what a trade-off makes of it.
        design: The points' rows, from `Belief.about`.
        steps: At least one.
    """
    asked = np.stack([belief.row(points[step.place], step.questions) for step in steps])
    moves = belief.covariance(design, asked)
    noise = belief.noise / np.array([len(step.questions) for step in steps])
    moves = moves / np.sqrt(belief.variances(asked) + noise)
    gains = [knowledge_gradient(values, moves[:, place]) / step.cost for place, step in enumerate(steps)]
    # Rounded, so that the last bits of a matrix product do not decide.
    return int(np.argmax(np.round(gains, 12)))


def knowledge_gradient(values: Floats, moves: Floats) -> float:
    """How much the largest value is expected to rise when each value moves by its move times one standard normal.

    Args:
        values: One a point.
        moves: Standard deviations of the changes, with their signs; the points move together.
    """
    highest = (values[:, None] + moves[:, None] * _OUTCOMES).max(axis=0)
    return float(highest @ _CHANCES - values.max())


def most_different(values: Floats, covariance: Floats, size: int, draws: int = 4096) -> list[int]:
    """At most `size` points whose best is expected to be highest: good ones that may each turn out best, no twins.

    Greedy, which reaches at least 1 - 1/e of what the best choice would (Nemhauser, Wolsey and Fisher 1978).

    Args:
        values: Means, one a point.
        covariance: Of the points' values.
        size: At least 1.
        draws: Samples, always the same ones.
    """
    root = np.linalg.cholesky(covariance + 1e-10 * np.eye(len(values)))
    samples = values + np.random.default_rng(0).standard_normal((draws, len(values))) @ root.T
    chosen: list[int] = []
    reached = np.full(draws, -np.inf)
    while len(chosen) < min(size, len(values)):
        gains = np.maximum(samples, reached[:, None]).mean(axis=0)
        gains[chosen] = -np.inf
        chosen.append(int(np.argmax(np.round(gains, 9))))
        reached = np.maximum(reached, samples[:, chosen[-1]])
    return chosen
