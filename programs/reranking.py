"""Reranking: a second look at what was retrieved, before the LM reads the best of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from programs.embedding import Embedder
from programs.errors import RagwrightError
from programs.index import Index, check_k
from programs.sparse import terms
from programs.types import Passage

# What relevance weighs against novelty in `mmr`, in [0, 1].
MMR_RELEVANCE = 0.7


class Reranker(Protocol):
    """Puts retrieved passages into a new order.

    Results are a selection of the given passages, at most `k`, with new scores, best first; equal scores keep the order
    of retrieval. Calls come from many threads.
    """

    def rerank(self, question: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        """The `k` best of `passages`.

        Raises:
            RagwrightError: `k` is below 1, or the embedder fails.
        """
        ...


class NoReranker:
    """Keeps the order and the scores of retrieval."""

    def rerank(self, question: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        """The first `k` passages."""
        check_k(k)
        return list(passages[:k])


@dataclass(frozen=True, slots=True)
class LexicalReranker:
    """Passages by how much of the question's words they have, rare words counting more."""

    index: Index

    def rerank(self, question: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        """The `k` passages with the largest share of the question's distinct terms, weighted by IDF; in [0, 1]."""
        check_k(k)
        # In the order of the question, so that sums come out the same in every process.
        weights = {term: self.index.sparse.idf(term) for term in dict.fromkeys(terms(question))}
        total = sum(weights.values()) or 1.0
        scored = []
        for passage in passages:
            present = set(terms(passage.text))
            shared = sum(weight for term, weight in weights.items() if term in present)
            scored.append(replace(passage, score=shared / total))
        return sorted(scored, key=lambda passage: -passage.score)[:k]


@dataclass(frozen=True, slots=True)
class MMRReranker:
    """Maximal marginal relevance: passages that are near to the question and far from those already chosen.

    Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries" (SIGIR 1998). A passage that points away from all chosen ones is as new as one that is unlike them.
    """

    index: Index
    embedder: Embedder

    def rerank(self, question: str, passages: Sequence[Passage], k: int) -> list[Passage]:
        """Choose `k` passages one by one; a score is the passage's marginal relevance when it was chosen."""
        check_k(k)
        if not passages:
            return []
        vectors = self.index.vectors([passage.chunk for passage in passages])
        relevance = vectors @ self.embedder.embed_question(question)
        redundancy = np.zeros_like(relevance)
        waiting = np.ones(len(passages), dtype=bool)
        chosen = []
        for _ in range(min(k, len(passages))):
            marginal = MMR_RELEVANCE * relevance - (1 - MMR_RELEVANCE) * redundancy
            best = int(np.argmax(np.where(waiting, marginal, -np.inf)))
            chosen.append(replace(passages[best], score=float(marginal[best])))
            waiting[best] = False
            redundancy = np.maximum(redundancy, vectors @ vectors[best])
        return chosen


def _none(index: Index) -> Reranker:
    return NoReranker()


def _mmr(index: Index) -> Reranker:
    if index.embedder is None:
        raise RagwrightError("reranker: mmr needs an embedder, but the embedder is 'none'; try wordllama.")
    return MMRReranker(index, index.embedder)


RERANKERS: dict[str, Callable[[Index], Reranker]] = {"none": _none, "lexical": LexicalReranker, "mmr": _mmr}
