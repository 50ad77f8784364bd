"""What can go wrong through nobody's bug, said in one line.

A `RagwrightError` is an expected problem: the command line prints it without a traceback and exits with 1. Everything
else is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RagwrightError(Exception):
    """An expected problem. The message says what is wrong, where, and what to do, and never holds a secret."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in a file that a person wrote.

    Attributes:
        place: Where it is: `file:line` for line-based files, `file: key.path` for others.
        message: What is wrong, with the offending value.
        mend: What to do about it.
    """

    place: str
    message: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f" ({self.mend})" if self.mend else "")


class ProblemsError(RagwrightError):
    """Several problems of the same input, all reported at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "an error needs at least one problem"
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MissingExtraError(RagwrightError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional package: install it with `pip install 'ragwright[{extra}]'`.")


class EndpointError(RagwrightError):
    """A model's endpoint refuses every call (wrong key, unknown model, unreachable): going on is useless."""


class BudgetExhaustedError(RagwrightError):
    """The budget does not allow another call."""
