"""Two searches: the second query is written by the LM after it has read what the first one found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dspy

from programs.rag import SearchCall
from programs.signatures import Answer, NextQuery
from programs.types import Passage


class MultiHop(dspy.Module):
    """Search, read, search again, answer from both finds.

    The LM is shown at most twice as many passages as one search returns; a passage that both searches find is shown
    once.

    Args:
        search: Returns the passages for a query, best first.
        signature: A DSPy signature from `context` and `question` to `answer`.
    """

    def __init__(self, search: SearchCall, signature: type[dspy.Signature] = Answer) -> None:
        super().__init__()
        self.search = search
        self.next_query = dspy.Predict(NextQuery)
        self.generate = dspy.Predict(signature)

    def forward(self, question: str) -> dspy.Prediction:
        """Answer `question`; the prediction also holds the second `query` and the `passages` shown to the LM."""
        first = tuple(self.search(question))
        query = self.next_query(context=_texts(first), question=question).query
        passages = self._both(first, query)
        generated = self.generate(context=_texts(passages), question=question)
        return dspy.Prediction(answer=generated.answer, passages=passages, query=query)

    def demo_inputs(self, predictor: str, question: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs that `predictor` would get for `question`; the second search is by `question` itself."""
        passages = tuple(self.search(question))
        return {"context": _texts(passages), "question": question}

    def _both(self, first: tuple[Passage, ...], query: str) -> tuple[Passage, ...]:
        """The first find, then what the second search adds; an empty query adds nothing."""
        second = self.search(query) if query and query.strip() else ()
        seen = {passage.chunk.id for passage in first}
        return first + tuple(passage for passage in second if passage.chunk.id not in seen)


def _texts(passages: Iterable[Passage]) -> list[str]:
    return [passage.text for passage in passages]
