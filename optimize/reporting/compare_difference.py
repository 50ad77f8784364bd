"""The difference of two programs on one test split, of which each may have been asked questions of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from optimize.inference.statistics import (
    CONFIDENCE,
    POWER,
    PairedDifference,
    cluster_places,
    cluster_sums,
    degrees_of_freedom,
    paired_difference,
    sign_flip_p,
)


def difference_between(
    one: Mapping[str, float], other: Mapping[str, float], groups: Mapping[str, str]
) -> PairedDifference:
    """Other minus one.

    Where both were asked the same questions this is the paired difference. Where each was asked some that the other was
    not, it is the difference of their means, with the cluster-robust error of a contrast (Cameron and Miller 2015, "A
    Practitioner's Guide to Cluster-Robust Inference", with their factor G / (G - 1)): within a group of questions what
    the two have in common cancels, and the rest does not. The questions of both have to be drawn from one split.

    Args:
        one: Example id -> score; at least one.
        other: The same of the other program.
        groups: Example id -> group of dependent questions; a question that has none stands alone.
    """
    if one.keys() == other.keys():
        ids = list(one)
        return paired_difference([other[i] - one[i] for i in ids], [groups.get(i, i) for i in ids])
    scores = np.array([*one.values(), *other.values()])
    clusters = [groups.get(i, i) for i in (*one, *other)]
    is_other = np.arange(scores.size) >= len(one)
    means = float(scores[~is_other].mean()), float(scores[is_other].mean())
    gap, n, count = means[1] - means[0], len(one.keys() | other.keys()), len(set(clusters))
    if count < 2:
        return PairedDifference(gap, -math.inf, math.inf, 1.0, n, count, math.inf)
    weights = np.where(is_other, 1 / len(other), -1 / len(one))
    shares = np.bincount(cluster_places(clusters)) / len(clusters)
    # Around each program's own mean for the interval; around the mean of all, as if they were equal, for the p.
    residuals = cluster_sums(weights * (scores - np.where(is_other, means[1], means[0])), clusters)
    stderr = math.sqrt(float((residuals**2).sum()) * count / (count - 1))
    p_value = sign_flip_p(cluster_sums(weights * (scores - scores.mean()), clusters))
    half, detectable = _multiples(degrees_of_freedom(shares))
    return PairedDifference(gap, gap - half * stderr, gap + half * stderr, p_value, n, count, detectable * stderr)


def _multiples(freedom: float) -> tuple[float, float]:
    """Standard errors to the end of an interval, and to a difference that is shown with the usual power."""
    from scipy import special

    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return half, half + float(special.stdtrit(freedom, POWER))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that are right for all of them together (Holm 1979, "A simple sequentially rejective procedure")."""
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        reached = max(reached, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = reached
    return adjusted
