"""What the scores so far say about every point of the space, those never tried included: one Bayesian linear model.

A question's score is explained by the setting values and the candidate that it was answered with, by how hard the
question is, and by what retrieval found for it, which is known for every configuration without an LM call, and is worth
more to one candidate than to another. So a few answers to some points say something about all of them, a partly asked
point is judged on what it was asked, and the best of many noisy means is drawn back towards what its settings suggest:
the cure of the winner's curse (James and Stein 1961).

How much each kind of effect matters is learned from the scores, by evidence maximization (MacKay 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")

Effect = tuple[str, Hashable]
"""Kind and value, such as `("chunk_size", 128)`; effects of one kind have one prior variance."""

Floats = NDArray[np.float64]

ROUNDS = 8
"""Steps of evidence maximization."""

USUAL_EFFECT, USUAL_NOISE = 0.03, 0.3
"""Standard deviations that are assumed until scores say otherwise: of an effect, and of one question's score."""

FAITH = 2.0
"""As many effects (for the noise: scores) as the assumption about their size counts for."""

LEVEL = 0.5
"""Prior standard deviation of the overall level and of what a signal is worth."""


@dataclass(frozen=True, slots=True)
class Described:
    """A point as the model sees it.

    Attributes:
        effects: Its setting values, its candidate and itself.
        signals: What is known about it for each search question without an LM call; questions x signals.
        reader: Which of the effects decides what the first signal is worth, such as the candidate: a prompt that cannot
            make use of a passage gains nothing by it. None: it is worth the same to all.
    """

    effects: tuple[Effect, ...]
    signals: Floats
    reader: Effect | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Scores of one point.

    Attributes:
        point: The point.
        questions: Positions of the questions that it was scored on.
        scores: As many scores.
    """

    point: Described
    questions: NDArray[np.int64]
    scores: Floats


def _one_thread(work: Callable[P, T]) -> Callable[P, T]:
    """Keep BLAS at one thread.

    Matrices this small wait for threads longer than they are computed, and the last bits of a product depend on how
    many threads there are.
    """

    @wraps(work)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        with _controller().limit(limits=1, user_api="blas"):
            return work(*args, **kwargs)

    return alone


@cache
def _controller() -> Any:
    # NumPy and SciPy each bring a BLAS; only loaded ones are found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class Belief:
    """A Gaussian over the effects, after some scores.

    Args:
        asked: All scores so far; may be empty.
        questions: Number of questions.
        known: Further points that will be asked about: an effect that no score has seen keeps its prior.
    """

    def __init__(self, asked: Sequence[Asked], questions: int, known: Iterable[Described] = ()) -> None:
        self._questions = questions
        described = [one.point for one in asked] + list(known)
        signals = described[0].signals.shape[1] if described else 0
        shared = set.intersection(*[set(point.effects) for point in described]) if described else set()
        # What all points have in common is part of the level.
        effects = dict.fromkeys(e for point in described for e in point.effects if e not in shared)
        readers = dict.fromkeys(point.reader for point in described if point.reader is not None)
        self._signals = slice(1, 1 + signals)
        self._readers = {reader: 1 + signals + place for place, reader in enumerate(readers)}
        self._first = 1 + signals + len(readers)
        self._columns = {effect: self._first + questions + place for place, effect in enumerate(effects)}
        kinds = ["question"] * questions + [kind for kind, _ in effects]
        names = list(dict.fromkeys(kinds))
        self._kinds = np.array([names.index(kind) for kind in kinds])
        self._width = self._first + len(kinds)
        self._fit(asked)

    @_one_thread
    def _fit(self, asked: Sequence[Asked]) -> None:
        rows = np.concatenate([np.zeros((0, self._width)), *(self._rows(one.point, one.questions) for one in asked)])
        scores = np.concatenate([np.zeros(0), *(one.scores for one in asked)])
        # What no score has seen keeps its prior, and is left out of the algebra.
        seen = np.flatnonzero(rows.any(axis=0))
        rows = rows[:, seen]
        gram, moment, square = rows.T @ rows, rows.T @ scores, float(scores @ scores)
        kinds = self._kinds
        prior = np.concatenate([np.full(self._first, LEVEL**2), np.full(kinds.size, USUAL_EFFECT**2)])
        # How well each effect is determined by the scores, from 0 (as in the prior) to 1.
        determined = np.zeros(prior.size)
        self._mean = np.zeros(prior.size)
        self.noise = USUAL_NOISE**2
        for step in range(ROUNDS + 1):
            inner = _inverse(gram / self.noise + np.diag(1 / prior[seen]))
            mean = inner @ moment / self.noise
            self._mean[seen] = mean
            if step == ROUNDS or not len(scores):
                break
            determined[seen] = np.clip(1 - np.diag(inner) / prior[seen], 0.0, 1.0)
            sizes = np.bincount(kinds, self._mean[self._first :] ** 2) + FAITH * USUAL_EFFECT**2
            prior[self._first :] = (sizes / (np.bincount(kinds, determined[self._first :]) + FAITH))[kinds]
            error = max(0.0, square - 2 * mean @ moment + mean @ gram @ mean)
            free = max(0.0, len(scores) - determined.sum())
            self.noise = (error + FAITH * USUAL_NOISE**2) / (free + FAITH)
        self._covariance = np.diag(prior)
        self._covariance[np.ix_(seen, seen)] = inner

    def row(self, point: Described, questions: NDArray[np.int64]) -> Floats:
        """What the mean score of a point on some questions is made of."""
        found = np.zeros(self._width)
        found[0] = 1.0
        found[self._signals] = point.signals[questions].sum(axis=0) / len(questions)
        if point.reader is not None:
            found[self._readers[point.reader]] = found[1]
        found[self._first + questions] = 1.0 / len(questions)
        found[self._places(point)] = 1.0
        return found

    def _rows(self, point: Described, questions: NDArray[np.int64]) -> Floats:
        rows = np.zeros((len(questions), self._width))
        rows[:, 0] = 1.0
        rows[:, self._signals] = point.signals[questions]
        if point.reader is not None:
            rows[:, self._readers[point.reader]] = rows[:, 1]
        rows[np.arange(len(questions)), self._first + questions] = 1.0
        rows[:, self._places(point)] = 1.0
        return rows

    def _places(self, point: Described) -> list[int]:
        return [self._columns[effect] for effect in point.effects if effect in self._columns]

    @_one_thread
    def about(self, points: Sequence[Described]) -> tuple[Floats, Floats]:
        """Mean score on all questions of each point, and the design that it comes from (points x effects)."""
        every = np.arange(self._questions)
        design = np.stack([self.row(point, every) for point in points])
        return design @ self._mean, design

    @_one_thread
    def covariance(self, design: Floats, other: Floats) -> Floats:
        """Covariance of what two designs stand for."""
        found: Floats = design @ self._covariance @ other.T
        return found

    @_one_thread
    def variances(self, design: Floats) -> Floats:
        """Variance of what each row of a design stands for."""
        found: Floats = np.maximum(0.0, ((design @ self._covariance) * design).sum(axis=1))
        return found


def _inverse(matrix: Floats) -> Floats:
    """Of a positive definite matrix, by Cholesky: half the work of what does for any."""
    from scipy.linalg import lapack

    if not matrix.size:
        return matrix
    factor, _ = lapack.dpotrf(matrix, lower=1)
    half, _ = lapack.dpotri(factor, lower=1)
    found: Floats = half + half.T
    np.fill_diagonal(found, np.diag(half))
    return found
