"""Reranking by a language model that reads all passages of a question at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dspy
import numpy as np
from dspy.utils.exceptions import AdapterParseError

from programs.ranking import Ranking, check_k

if TYPE_CHECKING:
    from programs.index import Index

_NUMBER = re.compile(r"\d+")


class RankPassages(dspy.Signature):
    """Order the numbered passages by how well they answer the question, the best first."""

    passages: str = dspy.InputField(desc="each after its number")
    question: str = dspy.InputField()
    order: str = dspy.OutputField(desc="the numbers of all passages, the best first, such as: 2, 3, 1")


class ListwiseReranker:
    """Asks the LM of the current DSPy context for an order, one call a question.

    Sun et al., "Is ChatGPT Good at Search? Investigating Large Language Models as Re-Ranking Agents" (EMNLP 2023):
    RankGPT, here without its sliding window: all passages must fit into one prompt. What the LM leaves out follows in
    the order of retrieval, and numbers of no passage are passed over; so a reply without any keeps that order.

    Attributes:
        index: Holds the chunks.
        predictor: What is asked; its signature can be read and its demos set.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.predictor = dspy.Predict(RankPassages)

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The `k` best of each ranking. The first of n scores 1, the next 1 - 1/n, and so on.

        Nothing is asked for a blank question, nor where there is nothing to order.

        Raises:
            RagwrightError: `k` is below 1.
            dspy.utils.exceptions.LMError: The LM fails.
        """
        check_k(k)
        return [self._rerank(question, ranking, k) for question, ranking in zip(questions, rankings, strict=True)]

    def _rerank(self, question: str, ranking: Ranking, k: int) -> Ranking:
        order = self._order(question, ranking) if question.strip() and len(ranking) > 1 else range(len(ranking))
        scores = 1.0 - np.arange(len(ranking)) / max(1, len(ranking))
        return Ranking(ranking.positions[list(order)], scores.astype(np.float32)).first(k)

    def _order(self, question: str, ranking: Ranking) -> list[int]:
        texts = [self.index.chunks[position].text for position in ranking.positions.tolist()]
        passages = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))
        return read_order(self._reply(question, passages), len(texts))

    def _reply(self, question: str, passages: str) -> str:
        # Optimizers learn from the trace of the program, which this call is no part of.
        with dspy.context(trace=None):
            try:
                return str(self.predictor(passages=passages, question=question).order)
            except AdapterParseError as error:
                # The numbers may be there without the field's name.
                return error.lm_response or ""


def read_order(reply: str, size: int) -> list[int]:
    """The order that a reply means: each of `size` places once, counted from 0."""
    named = [int(number) - 1 for number in _NUMBER.findall(reply) if len(number) < 10]
    return [place for place in dict.fromkeys([*named, *range(size)]) if 0 <= place < size]
