"""A point of the search, which is a configuration with a candidate, and what it is asked in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from optimize.data.example import Example
from optimize.evaluation.evaluate import FAILURE_LIMIT, Evaluation
from optimize.searching.belief import Asked, Described, Floats
from programs.config import PipelineConfig

RUNGS, SMALLEST_RUNG = 4, 4
"""Into so many steps a point's questions are cut, and the fewest questions of one."""

BASELINE = "baseline"
"""The unit of the setting to beat."""


class Bench(Protocol):
    """Answers questions with a configuration and a candidate."""

    def ask(
        self, unit: str, phase: Any, config: PipelineConfig, candidate: str, examples: Sequence[Example]
    ) -> Evaluation:
        """The rows of the examples, in their order; those of this unit that were answered before are read."""

    def affords(self, unit: str, count: int) -> bool:
        """Whether the first `count` search questions of a unit may be asked; those answered before cost nothing."""

    def foresee(self, config: PipelineConfig, examples: Sequence[Example]) -> Floats:
        """What is known without an LM call; questions x signals, always as many signals."""

    def tokens(self, config: PipelineConfig, candidate: str) -> float:
        """About how many prompt tokens a question will take."""


@dataclass(eq=False)
class Point:
    """A configuration with a candidate, and what it was asked so far.

    Attributes:
        config: Canonical.
        candidate: Its id.
        params: The configuration as parameters of the space; None for one that is not of the space.
        described: What the belief sees of it.
        expected: Prompt tokens a question, foreseen.
        unit: Name of its evaluation once it was asked anything.
        order: Positions of the search questions, in the order in which it is asked them.
        rows: Answers so far.
    """

    config: PipelineConfig
    candidate: str
    params: Mapping[str, Any] | None
    described: Described
    expected: float
    unit: str = ""
    order: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rows: Evaluation = field(default_factory=lambda: Evaluation(()))

    @cached_property
    def key(self) -> tuple[str, str]:
        """What tells points apart."""
        return self.config.fingerprint(), self.candidate

    @property
    def failing(self) -> bool:
        """Whether too much of it fails for more questions to make sense; one failure may be chance."""
        return self.rows.failures > max(1.0, FAILURE_LIMIT * len(self.rows.rows))

    def asked(self) -> Asked:
        """Its scores; failed questions are not among them."""
        found = [(at, row.score) for at, row in zip(self.order, self.rows.rows, strict=False) if row.score is not None]
        places = np.array([place for place, _ in found], dtype=np.int64)
        return Asked(self.described, places, np.array([score for _, score in found], dtype=float))


def questions_a_step(questions: int) -> int:
    """How many of the search questions a point is asked at a time."""
    return max(SMALLEST_RUNG, math.ceil(questions / RUNGS))


def order_of(number: int, questions: int) -> NDArray[np.int64]:
    """Positions of the search questions in the order in which the trial of this number is asked them.

    Each trial begins a step after the one before: every question is asked early on, and no leader has met only those
    that happen to come first.
    """
    return np.roll(np.arange(questions), -questions_a_step(questions) * (number % RUNGS))
