"""Exact search by cosine: every vector is looked at, so equal vectors are found equally, in every process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from programs.embedding import Vectors
from programs.errors import RagwrightError
from programs.ranking import Positions, Ranking, Scores

Mask = NDArray[np.bool_]

# Questions at a time are chosen so that their similarities to all chunks fit into about 64 MB.
_SIMILARITIES = 16_000_000
# Products of equal vectors differ in their last bits from one batch to another; ties must not depend on that.
_DECIMALS = 6


class ExactVectors:
    """All vectors of an index in one matrix.

    Args:
        rows: Unit vectors, one row for each chunk, or zeros for a blank one; may be mapped from a file.
    """

    def __init__(self, rows: Vectors) -> None:
        self._rows = rows

    def nearest(self, vectors: Vectors, k: int, mask: Mask | None = None) -> list[Ranking]:
        """The `k` chunks with the highest cosine for each of `vectors`; none for a vector of zeros.

        Args:
            vectors: Unit vectors, one row for each question.
            k: At least 1.
            mask: Which chunks count; None for all.

        Raises:
            RagwrightError: Questions and chunks come from different embedders.
        """
        if vectors.shape[1] != self._rows.shape[1]:
            raise RagwrightError(
                f"embedder: the question has {vectors.shape[1]} numbers and the documents have {self._rows.shape[1]}; "
                "name the embedder that made the documents' vectors."
            )
        positions = np.arange(len(self._rows)) if mask is None else mask.nonzero()[0]
        rows = self._rows if mask is None else self._rows[positions]
        at_once = max(1, _SIMILARITIES // max(1, len(rows)))
        rankings: list[Ranking] = []
        for start in range(0, len(vectors), at_once):
            part = vectors[start : start + at_once]
            rankings += [
                _nearest(positions, scores, k) if vector.any() else Ranking.empty()
                for vector, scores in zip(part, part @ rows.T, strict=True)
            ]
        return rankings

    def rows(self, positions: Positions) -> Vectors:
        """The vectors of some chunks, one row each."""
        return np.asarray(self._rows[positions])


def _nearest(positions: Positions, similarities: Scores, k: int) -> Ranking:
    if k < len(similarities):
        floor = np.partition(similarities, -k)[-k] - 2 * 10.0**-_DECIMALS
        reach = (similarities >= floor).nonzero()[0]
        positions, similarities = positions[reach], similarities[reach]
    return top(positions, np.round(similarities, _DECIMALS), k)


def top(positions: Positions, scores: Scores, k: int) -> Ranking:
    """The `k` best of scored chunks; equal scores in the order of `positions`, also at the last place."""
    if k < len(scores):
        floor = np.partition(scores, -k)[-k]
        reach = scores >= floor
        positions, scores = positions[reach], scores[reach]
    return Ranking.best(positions, scores, k)
