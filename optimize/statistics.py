"""How sure a difference is, with questions of one document counted as what they are: dependent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "not shown better", "worse", "underpowered"]

CONFIDENCE = 0.95
POWER = 0.8
FEW_CLUSTERS = 10
EXACT_CLUSTERS = 13
"""Up to this many clusters the permutation test goes through all sign patterns."""
PERMUTATIONS = 10_000
_BATCH = 500


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """New minus baseline on the same questions.

    Attributes:
        mean: Mean difference over questions.
        low: Lower end of the two-sided 95 % interval.
        high: Upper end.
        p_value: Two-sided, by sign flips of whole clusters.
        n: Number of questions.
        clusters: Number of independent groups of questions.
        detectable: Smallest true difference that this many questions would show with 80 % power.
    """

    mean: float
    low: float
    high: float
    p_value: float
    n: int
    clusters: int
    detectable: float


def mean_and_stderr(scores: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """Mean and its standard error; with `clusters`, the cluster-robust one.

    The clustered variance is that of a mean of dependent observations with a small-sample factor of G / (G - 1)
    (Miller 2024, "Adding Error Bars to Evals", section 2.2; Cameron and Miller 2015). The error of fewer than two
    observations or clusters is not known: NaN.
    """
    values = np.asarray(scores, dtype=float)
    if values.size == 0:
        return math.nan, math.nan
    mean = float(values.mean())
    sums = cluster_sums(values - mean, clusters if clusters is not None else range(values.size))
    if sums.size < 2:
        return mean, math.nan
    variance = sums.size / (sums.size - 1) * float(sums @ sums) / values.size**2
    return mean, math.sqrt(variance)


def cluster_sums(values: NDArray[np.float64], clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """Sum of the values of each cluster, in order of first appearance."""
    assert len(clusters) == values.size, "one cluster a value"
    index = {cluster: position for position, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros(len(index))
    np.add.at(sums, [index[cluster] for cluster in clusters], values)
    return sums


def paired_difference(differences: Sequence[float], clusters: Sequence[Hashable]) -> PairedDifference:
    """Interval by t over clusters, p by sign flips of clusters.

    Args:
        differences: New minus baseline, a value a question.
        clusters: The group of each question.
    """
    from scipy import special

    mean, stderr = mean_and_stderr(differences, clusters)
    count = len(set(clusters))
    if count < 2:
        return PairedDifference(mean, -math.inf, math.inf, 1.0, len(differences), count, math.inf)
    quantile = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    power = float(special.stdtrit(count - 1, POWER))
    p_value = sign_flip_p(cluster_sums(np.asarray(differences, dtype=float), clusters))
    half = quantile * stderr
    return PairedDifference(
        mean, mean - half, mean + half, p_value, len(differences), count, (quantile + power) * stderr
    )


def sign_flip_p(sums: NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of a zero mean when each cluster's sign could as well be the other (Fisher 1935, chapter 3).

    Exact for few clusters, else by Monte Carlo with the observed pattern counted in (Phipson and Smyth 2010).
    """
    observed = abs(float(sums.sum()))
    tolerance = 1e-12 * max(1.0, float(np.abs(sums).sum()))
    if sums.size <= EXACT_CLUSTERS:
        patterns = (np.arange(2**sums.size)[:, None] >> np.arange(sums.size)) & 1
        totals = np.abs((1 - 2 * patterns) @ sums)
        return float((totals >= observed - tolerance).mean())
    generator = np.random.default_rng(seed)
    # In batches: all patterns of some thousand clusters together would take gigabytes.
    batches = (1.0 - 2.0 * generator.integers(0, 2, (_BATCH, sums.size)) for _ in range(PERMUTATIONS // _BATCH))
    extreme = sum(int((np.abs(signs @ sums) >= observed - tolerance).sum()) for signs in batches)
    return (1 + extreme) / (1 + PERMUTATIONS)


def judge(difference: PairedDifference, smallest_effect: float) -> Verdict:
    """The verdict in words.

    With fewer than ten clusters interval and permutation must agree. A difference that is not shown counts as
    *underpowered* when the data could not have shown `smallest_effect` either.
    """
    if difference.clusters < 2:
        return "underpowered"
    by_interval = difference.low > 0 or difference.high < 0
    by_permutation = difference.p_value <= 1 - CONFIDENCE
    if difference.clusters < FEW_CLUSTERS and by_interval != by_permutation:
        return "underpowered"
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "underpowered" if difference.detectable > smallest_effect else "not shown better"
