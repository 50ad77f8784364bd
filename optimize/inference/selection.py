"""What is to be said of a choice among many: when to stop asking one, and how far the best one's number is too good."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimize.inference.statistics import (
    EXACT_CLUSTERS,
    cluster_places,
    degrees_of_freedom,
    mean_and_stderr,
    sign_patterns,
)

POCOCK = {1: 0.05, 2: 0.0294, 3: 0.0221, 4: 0.0182, 5: 0.0158}
"""Number of looks -> nominal p at each, so that all together are two-sided 5 % (Pocock 1977, "Group sequential methods
in the design and analysis of clinical trials", table 1). Taken one-sided they stop an equal candidate in under 5 %."""

FEWEST_CLUSTERS = 6
"""With fewer, all of them against a candidate are more likely than the nominal p by chance alone."""

RESAMPLES = 1000


def pocock_look(differences: Sequence[float], clusters: Sequence[Hashable] | None = None, looks: int = 4) -> bool:
    """Whether a candidate is so clearly behind that no more questions are spent on it.

    One-sided paired t over clusters at Pocock's nominal p, the same at each look. This is allocation, not inference:
    nothing is claimed of what was stopped, and against an incumbent that is itself the best so far equal candidates
    stop more often than against a fixed one.

    Args:
        differences: Candidate minus incumbent on the questions that both were asked so far.
        clusters: The group of each question; None for independent ones.
        looks: How many looks there are in all, 1 to 5.
    """
    from scipy import special

    names: Sequence[Hashable] = range(len(differences)) if clusters is None else clusters
    mean, stderr = mean_and_stderr(differences, names)
    sizes = np.bincount(cluster_places(names)) if len(names) else np.zeros(0)
    if sizes.size < FEWEST_CLUSTERS or mean >= 0:
        return False
    freedom = degrees_of_freedom(sizes / sizes.sum())
    return stderr == 0 or float(special.stdtr(freedom, mean / stderr)) < POCOCK[looks]


def max_t(
    differences: ArrayLike, clusters: Sequence[Hashable], *, one_sided: bool = False, seed: int = 0
) -> NDArray[np.float64]:
    """The p of each of several candidates against one baseline, adjusted for their number.

    Joint sign flips of whole clusters; each candidate's studentized mean is compared with the largest one of a pattern
    (single-step maxT of Westfall and Young 1993, section 2.3), so that candidates which answer alike cost less than
    Bonferroni's factor. A p below 0.05 is right for all of them together in 95 % of the cases. All patterns for up to
    13 clusters, else 10,000 random ones with the observed one counted in.

    Args:
        differences: Candidates x questions, candidate minus baseline; NaN where one of the two has no score.
        clusters: The group of each question.
        one_sided: Whether only candidates that are better count.
        seed: Of the random patterns.
    """
    matrix = np.asarray(differences, dtype=float)
    assert matrix.ndim == 2 and matrix.shape[1] == len(clusters), "candidates x questions, one cluster a question"
    sums, counts = _by_cluster(matrix, clusters)
    flipped = _Studentized(sums, counts)
    size = (lambda t: t) if one_sided else np.abs
    observed = size(flipped.t(np.ones((1, sums.shape[1]))))[0]
    beyond, count = np.zeros(len(matrix)), 0
    for signs in sign_patterns(sums.shape[1], seed):
        largest = size(flipped.t(signs)).max(axis=1, initial=-math.inf)
        beyond += (largest[:, None] >= observed - 1e-9 * np.maximum(1.0, np.abs(observed))).sum(axis=0)
        count += len(signs)
    return beyond / count if sums.shape[1] <= EXACT_CLUSTERS else (1 + beyond) / (1 + count)


def _by_cluster(matrix: NDArray[np.float64], clusters: Sequence[Hashable]) -> tuple[NDArray[np.float64], ...]:
    """Rows x clusters: the sum of what is known, and how much is known."""
    member = np.eye(len(set(clusters)))[cluster_places(clusters)]
    return np.nan_to_num(matrix) @ member, (~np.isnan(matrix)).astype(float) @ member


class _Studentized:
    """The t of each candidate when the signs of its clusters are others; see `mean_and_stderr` for the error."""

    def __init__(self, sums: NDArray[np.float64], counts: NDArray[np.float64]) -> None:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        weight = 1 / np.maximum(1 - shares, 1e-12)
        self._sums = sums
        self._cross = sums * shares * weight
        # A residual sum is sum - share * total: its weighted square has a part without signs, one with, one of totals.
        self._fixed, self._of_totals = (sums**2 * weight).sum(axis=1), (shares**2 * weight).sum(axis=1)

    def t(self, signs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patterns x candidates."""
        totals = signs @ self._sums.T
        variance = self._fixed - 2 * totals * (signs @ self._cross.T) + totals**2 * self._of_totals
        # Where all clusters agree the rounding error of zero stands for it, and t is as large as it gets.
        return totals / np.sqrt(np.maximum(variance, 1e-12 * np.maximum(self._fixed, 1e-12)))


def optimism(scores: ArrayLike, clusters: Sequence[Hashable], seed: int = 0) -> float:
    """How far the search value of the best of several trials is expected to lie above its true value; from 0.

    The best value minus its bootstrap bias-corrected one (Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping
    the out-of-sample predictions for efficient and accurate cross-validation"): clusters are drawn with replacement,
    the best trial on those drawn is chosen, and its value on those not drawn is what a choice of this kind is worth.
    Simulated with 30 equal trials on 48 questions: 0.079 where the true bias is 0.075; where the trials differ it is
    somewhat too careful (0.038 against 0.022), since a choice among fewer questions is a worse one.

    Args:
        scores: Trials x questions; NaN where a trial was not asked. A trial counts with its mean over what it was
            asked, so leave out those that could not have been chosen.
        clusters: The group of each question.
        seed: Of the draws.

    Returns:
        The bias in units of the score; 0 for a single trial; NaN for fewer than two clusters.
    """
    matrix = np.asarray(scores, dtype=float)
    assert matrix.ndim == 2 and matrix.shape[1] == len(clusters), "trials x questions, one cluster a question"
    matrix = matrix[~np.isnan(matrix).all(axis=1)]
    if len(matrix) == 1:
        return 0.0
    if len(matrix) == 0 or len(set(clusters)) < 2:
        return math.nan
    sums, counts = _by_cluster(matrix, clusters)
    groups = sums.shape[1]
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES).astype(float)
    chosen = np.nan_to_num(_means(drawn, sums, counts), nan=-math.inf).argmax(axis=1)
    unseen = _means((drawn == 0).astype(float), sums, counts)[np.arange(RESAMPLES), chosen]
    best = float((sums.sum(axis=1) / counts.sum(axis=1)).max())
    return max(0.0, best - float(np.nanmean(unseen)))


def _means(weights: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draws x trials: the weighted mean over clusters; NaN where nothing is known."""
    known = weights @ counts.T
    return np.where(known > 0, weights @ sums.T / np.maximum(known, 1.0), math.nan)
