"""What the optimizers have in common: parameters with ranges, needs that are checked first, and a price."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from optimize.compiling.task import CompileTask
from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy

LEAST_TOKENS = 64
"""What the reflection LM must be allowed to write; an instruction is a few sentences."""


def whole(default: int, low: int, high: int = 10_000) -> Any:
    """A parameter that is a whole number from `low` to `high`."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Made:
    """One compiled program.

    Attributes:
        program: The program.
        params: The parameters that made it.
        parents: Ids of the candidates that it was made from.
    """

    program: dspy.Module
    params: Mapping[str, Any]
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Optimizer(ABC):
    """One optimizer with its parameters, which are the fields.

    The defaults take about a hundred calls of a program of one predictor.

    Attributes:
        name: The name in the table.
        scores: Whether it runs programs and scores them.
    """

    name: ClassVar[str]
    scores: ClassVar[bool] = True

    @property
    def reflects(self) -> bool:
        """Whether an LM writes instructions."""
        return False

    @property
    @abstractmethod
    def least_train(self) -> int:
        """Training examples that it needs."""

    @property
    @abstractmethod
    def most_candidates(self) -> int:
        """Candidates that it makes at most."""

    @abstractmethod
    def most_calls(self, predictors: int, train: int) -> int:
        """LM calls that it takes at most, task and reflection together; a judge's are not counted.

        Args:
            predictors: LM calls of one run of the program.
            train: Training examples.
        """

    @abstractmethod
    def compile(self, task: CompileTask) -> Iterator[Made]:
        """Make candidates, best first. The DSPy context is set: LM, prompt format, threads."""

    def problem(self) -> str | None:
        """What is wrong with the parameters together, or None."""
        return None

    def params(self) -> dict[str, Any]:
        """The parameters by name."""
        return asdict(self)

    @classmethod
    def of(cls, name: str, params: Mapping[str, Any]) -> Self:
        """An optimizer from a study file's parameters.

        Raises:
            RagwrightError: A parameter is unknown or out of range.
        """
        known = {parameter.name: parameter for parameter in fields(cls)}
        if unknown := sorted(set(map(str, params)) - set(known)):
            raise RagwrightError(f"{name} has no parameter {unknown[0]!r}; it takes: {', '.join(known)}.")
        for key, value in params.items():
            limits = known[key].metadata
            if limits and not (type(value) is int and limits["low"] <= value <= limits["high"]):
                wanted = f"a whole number from {limits['low']} to {limits['high']}"
                raise RagwrightError(f"{name}: {key} is {value!r} and has to be {wanted}.")
        optimizer = cls(**params)
        if (problem := optimizer.problem()) is not None:
            raise RagwrightError(f"{name}: {problem}.")
        return optimizer

    def check_train(self, train: int) -> None:
        """See whether there are enough training examples.

        Raises:
            RagwrightError: There are too few.
        """
        if train < self.least_train:
            raise RagwrightError(
                f"{self.name} needs {self.least_train} training examples with known answers whose evidence is found, "
                f"and there are {train}: add some, or take smaller parameters."
            )

    def check_writer(self, model: str, max_tokens: int | None) -> None:
        """See whether the reflection LM can write what is asked of it.

        Args:
            model: The LM's name.
            max_tokens: Tokens that it may write; None: as many as it likes.

        Raises:
            RagwrightError: It may not write enough.
        """
        if self.reflects and max_tokens is not None and max_tokens < LEAST_TOKENS:
            raise RagwrightError(
                f"{self.name}: the reflection LM {model} may write {max_tokens} tokens, and an instruction needs "
                f"{LEAST_TOKENS}: raise its max_tokens, or name another as reflection_lm."
            )


@dataclass(frozen=True)
class Comparing(Optimizer):
    """An optimizer that compares what it makes on training examples. The best `keep` become candidates."""

    keep: int = whole(2, 1, 100)

    @property
    def most_candidates(self) -> int:
        """The best of them."""
        return self.keep


@dataclass(frozen=True)
class Writing(Comparing):
    """An optimizer for which the reflection LM writes instructions."""

    @property
    def reflects(self) -> bool:
        """It does."""
        return True
