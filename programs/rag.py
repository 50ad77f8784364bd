"""Retrieve, then generate: the plainest program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from programs.signatures import Answer
from programs.types import Passage

SearchCall = Callable[[str], Sequence[Passage]]


class RAG(dspy.Module):
    """One search, one answer.

    Args:
        search: Returns the passages for a question, best first.
        signature: A DSPy signature from `context` and `question` to `answer`.
    """

    def __init__(self, search: SearchCall, signature: type[dspy.Signature] = Answer) -> None:
        super().__init__()
        self.search = search
        self.generate = dspy.Predict(signature)

    def forward(self, question: str) -> dspy.Prediction:
        """Answer `question`; the prediction also holds the `passages` that the LM was shown."""
        passages = tuple(self.search(question))
        generated = self.generate(context=[passage.text for passage in passages], question=question)
        return dspy.Prediction(answer=generated.answer, passages=passages)

    def demo_inputs(self, predictor: str, question: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs that `predictor` would get for `question` under this pipeline: what a demo shows."""
        return {"context": [passage.text for passage in self.search(question)], "question": question}
