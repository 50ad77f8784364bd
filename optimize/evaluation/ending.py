"""Errors that end all work, heard where they arise: libraries and people's own code swallow them."""

from __future__ import annotations

from typing import Any

from dspy.utils.callback import BaseCallback

from programs.errors import BudgetExhaustedError, EndpointError


class Ending(BaseCallback):
    """A DSPy callback that remembers why no further call of a language model makes sense.

    Attributes:
        error: The first such error; None as long as there is none.
    """

    def __init__(self) -> None:
        self.error: EndpointError | BudgetExhaustedError | None = None

    def on_lm_end(self, call_id: str, outputs: dict[str, Any] | None, exception: BaseException | None = None) -> None:
        """Look at how a call ended; DSPy wraps what an engine raises."""
        while exception is not None and self.error is None:
            if isinstance(exception, EndpointError | BudgetExhaustedError):
                self.error = exception
            exception = exception.__cause__

    def check(self) -> None:
        """Raise the error anew.

        Raises:
            EndpointError: A language model refuses every call.
            BudgetExhaustedError: The budget does not allow another call.
        """
        if self.error is not None:
            raise type(self.error)(str(self.error))
