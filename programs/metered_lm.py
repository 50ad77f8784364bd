"""The DSPy LM in front of a `MeteredEngine`."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.utils.exceptions import LMUnexpectedError

from programs.errors import RagwrightError
from programs.rollout import rollout


class MeteredLM(dspy.LM):
    """A DSPy LM whose every call passes a `MeteredEngine`, also from copies of it. Made by `open_lm`."""

    @property
    def bare_completions(self) -> bool:
        """Whether a prompt format may send raw text (`programs.completion.BARE`)."""
        return bool(self.engine.bare_completions)

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer as `dspy.LM` does.

        Raises:
            RagwrightError: The budget or the endpoint does not allow the call.
        """
        with rollout(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))):
            try:
                return super().__call__(prompt, messages=messages, **kwargs)
            except LMUnexpectedError as error:
                # DSPy wraps what an engine raises, unless it is an error of DSPy's own.
                if not isinstance(error.__cause__, RagwrightError):
                    raise
                expected = error.__cause__
        raise expected from None
