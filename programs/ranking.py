"""A ranking: which chunks of an index were found for one question, and in what order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from programs.errors import RagwrightError

Positions = NDArray[np.intp]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Chunks in order, best first.

    Attributes:
        positions: Places in the index's `chunks`, each at most once.
        scores: As many, descending; comparable only within one ranking.
    """

    positions: Positions
    scores: Scores

    def __len__(self) -> int:
        return len(self.positions)

    def first(self, k: int) -> Self:
        """The best `k` of it, or all where there are fewer."""
        return type(self)(self.positions[:k], self.scores[:k])

    @classmethod
    def empty(cls) -> Self:
        """Nothing was found."""
        return cls(np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32))

    @classmethod
    def best(cls, positions: Positions, scores: Scores, k: int) -> Self:
        """The `k` best of scored chunks; equal scores keep the order in which they are given.

        Args:
            positions: Any order, each once.
            scores: One for each.
            k: At least 1.
        """
        order = np.argsort(-scores, kind="stable")[:k]
        return cls(positions[order], scores[order].astype(np.float32, copy=False))


def check_k(k: int) -> None:
    """Refuse a number of results below 1.

    Raises:
        RagwrightError: It is below 1.
    """
    if k < 1:
        raise RagwrightError(f"k: at least 1 result must be asked for, got {k!r}.")
