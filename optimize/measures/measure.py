"""What a measure of retrieval is. `measures_spans` and `measures_ranking` have the kinds, `measures` their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from optimize.measures.evidence import Held


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure, a value that names itself: it parses from its name, prints as it, compares and hashes.

    The docstring of each kind says formula, range and source.

    Attributes:
        k: How many ranks count, from 1; None where all that was handed over counts.
    """

    k: int | None = None

    base: ClassVar[str]
    """The name without the cut."""
    cut: ClassVar[Literal["none", "optional", "required"]] = "none"
    """Whether the name takes `@k`."""
    higher_is_better: ClassVar[bool] = True
    needs_evidence: ClassVar[bool] = True
    from_spans: ClassVar[bool] = True
    """Whether the spans handed over determine it; what does not is given to `Scorer.score`."""

    def __str__(self) -> str:
        return self.base if self.k is None else f"{self.base}@{self.k}"

    def __call__(self, held: Held) -> float:
        """The value for one question."""
        return self._value(held)

    def _value(self, held: Held) -> float:
        raise AssertionError(f"{self} does not follow from spans")
