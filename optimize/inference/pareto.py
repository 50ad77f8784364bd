"""Trade-offs: which of many points no other beats in everything, and a few of them that stand for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]


def front(losses: Losses) -> list[int]:
    """Rows that no other row dominates, in their order; of equal rows the first.

    Args:
        losses: One row a point, one column an objective; lower is better.
    """
    kept = []
    for row, point in enumerate(losses):
        no_worse = (losses <= point).all(axis=1)
        better = no_worse & (losses < point).any(axis=1)
        equal_before = no_worse[:row] & ~better[:row]
        if not better.any() and not equal_before.any():
            kept.append(row)
    return kept


def representatives(losses: Losses, size: int, first: Sequence[int] = ()) -> list[int]:
    """At most `size` rows that together dominate the largest area: greedily, `first` ones before the others.

    Greedy choice by hypervolume reaches at least 1 - 1/e of what the best choice would (Guerreiro, Fonseca and Paquete
    2016). Rows that add nothing are not chosen.

    Args:
        losses: One row a point, two columns; lower is better. Columns are scaled to [0, 1] by their range.
        size: At least 1.
        first: Rows that are chosen in any case.
    """
    low, span = losses.min(axis=0), np.ptp(losses, axis=0)
    scaled = (losses - low) / np.where(span > 0, span, 1.0)
    chosen = list(dict.fromkeys(first))[:size]
    while len(chosen) < size:
        area = hypervolume(scaled[chosen])
        gains = [0.0 if row in chosen else hypervolume(scaled[[*chosen, row]]) - area for row in range(len(scaled))]
        best = int(np.argmax(gains)) if gains else 0
        if not gains or gains[best] <= 1e-9:
            break
        chosen.append(best)
    return chosen


def hypervolume(losses: Losses) -> float:
    """Area between points of two losses in [0, 1] and the corner (1.1, 1.1), so that the extremes count too."""
    corner = 1.1
    area, reached = 0.0, corner
    for first, second in sorted(map(tuple, losses)):
        area += (corner - first) * max(0.0, reached - second)
        reached = min(reached, second)
    return area


def knee(losses: Losses) -> int:
    """The row of the front that lies farthest below the line between the front's ends, both losses scaled to [0, 1].

    Where little of one objective buys most of the other (Branke, Deb, Dierolf and Osswald 2004). Of a front without a
    bulge it is the row with the smallest first loss.

    Args:
        losses: One row a point, two columns; lower is better.
    """
    rows = front(losses)
    points = losses[rows]
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scaled = (points - low) / np.where(span > 0, span, 1.0)
    below = 1.0 - scaled.sum(axis=1)
    place = int(np.argmax(np.round(below, 9)))
    return rows[place if below[place] > 1e-9 else int(np.argmin(points[:, 0]))]
