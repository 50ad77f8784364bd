"""Retrieval: from a question to the chunks that may answer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from programs.embedding import Embedder
from programs.errors import RagwrightError
from programs.index import Index, check_k
from programs.types import Chunk, Passage

# The constant of Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
# learning methods" (SIGIR 2009).
RRF_CONSTANT = 60
# Depth of the fused lists. It does not follow k, so that the results for a small k are the first of those for a large.
RRF_DEPTH = 100


class Retriever(Protocol):
    """Finds passages for a question.

    Results are the same for the same question, at most `k`, each chunk once, best first; equal scores come in the order
    of the index's chunks. A shorter list means that nothing else matches. Calls come from many threads.
    """

    def retrieve(self, question: str, k: int) -> list[Passage]:
        """The `k` best passages.

        Raises:
            RagwrightError: `k` is below 1, or the embedder fails.
        """
        ...


@dataclass(frozen=True, slots=True)
class DenseRetriever:
    """Chunks by cosine similarity of their vectors to the question's."""

    index: Index
    embedder: Embedder

    def retrieve(self, question: str, k: int) -> list[Passage]:
        """The `k` nearest passages; none for a blank question. Scores are cosines, in [-1, 1]."""
        return _passages(self.index.search(self.embedder.embed_question(question), k))


@dataclass(frozen=True, slots=True)
class SparseRetriever:
    """Chunks by BM25."""

    index: Index

    def retrieve(self, question: str, k: int) -> list[Passage]:
        """The `k` best passages that share a term with the question. Scores are above 0, without an upper limit."""
        check_k(k)
        scores = self.index.sparse.scores(question)
        return _passages(self.index.ranked({int(at): float(scores[at]) for at in scores.nonzero()[0]}, k))


@dataclass(frozen=True, slots=True)
class HybridRetriever:
    """Dense and sparse retrieval, fused by the reciprocals of their ranks."""

    index: Index
    retrievers: tuple[Retriever, ...]

    def retrieve(self, question: str, k: int) -> list[Passage]:
        """The `k` passages with the highest sums of 1 / (60 + rank), ranks from 1."""
        check_k(k)
        scores: dict[str, float] = {}
        for retriever in self.retrievers:
            for rank, passage in enumerate(retriever.retrieve(question, max(k, RRF_DEPTH)), start=1):
                scores[passage.chunk.id] = scores.get(passage.chunk.id, 0.0) + 1.0 / (RRF_CONSTANT + rank)
        positions = self.index.positions
        return _passages(self.index.ranked({positions[chunk_id]: score for chunk_id, score in scores.items()}, k))


def _dense(index: Index) -> Retriever:
    if index.embedder is None:
        raise RagwrightError("retriever: dense and hybrid need an embedder, but the embedder is 'none'; try wordllama.")
    return DenseRetriever(index, index.embedder)


def _hybrid(index: Index) -> Retriever:
    return HybridRetriever(index, (_dense(index), SparseRetriever(index)))


RETRIEVERS: dict[str, Callable[[Index], Retriever]] = {"dense": _dense, "sparse": SparseRetriever, "hybrid": _hybrid}


def _passages(found: list[tuple[Chunk, float]]) -> list[Passage]:
    return [Passage(chunk, score) for chunk, score in found]
