"""Retrieval: from questions to the chunks that may answer them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from programs.config import PipelineConfig
from programs.embedding import Embedder
from programs.errors import RagwrightError
from programs.exact import Mask, top
from programs.filtering import matches, parse_filter
from programs.fusion import RRF_CONSTANT
from programs.index import Index
from programs.ranking import Positions, Ranking, Scores, check_k

# Depth of the fused lists. It does not follow k, so that the results for a small k are the first of those for a large.
FUSION_DEPTH = 100


class Retriever(Protocol):
    """Finds chunks for questions.

    A ranking is the same for the same question in whatever company it is asked; at most `k` chunks, each once, best
    first; equal scores come in the order of the index's chunks. A shorter one means that nothing else matches, and the
    ranking for a small `k` is the beginning of that for a large one. Calls come from many threads.
    """

    def retrieve(self, questions: Sequence[str], k: int) -> list[Ranking]:
        """The `k` best chunks for each question.

        Raises:
            RagwrightError: `k` is below 1, or the embedder fails.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseRetriever:
    """Chunks by cosine similarity of their vectors to the question's."""

    index: Index
    embedder: Embedder
    mask: Mask | None = None

    def retrieve(self, questions: Sequence[str], k: int) -> list[Ranking]:
        """The `k` nearest chunks; none for a blank question. Scores are cosines, in [-1, 1]."""
        check_k(k)
        return self.index.nearest(self.embedder.embed_questions(questions), k, self.mask) if questions else []


@dataclass(frozen=True, slots=True, eq=False)
class SparseRetriever:
    """Chunks by BM25."""

    index: Index
    mask: Mask | None = None

    def retrieve(self, questions: Sequence[str], k: int) -> list[Ranking]:
        """The `k` best chunks that share a term with the question. Scores are above 0, without an upper limit."""
        check_k(k)
        return [self._best(*found, k) for found in self.index.sparse.scores(questions)]

    def _best(self, positions: Positions, scores: Scores, k: int) -> Ranking:
        if self.mask is not None:
            kept = self.mask[positions]
            positions, scores = positions[kept], scores[kept]
        return top(positions, scores, k)


@dataclass(frozen=True, slots=True, eq=False)
class FusedRetriever:
    """Dense and sparse retrieval, each to a fixed depth, joined by a sum of what each thinks of a chunk.

    Attributes:
        index: Holds the chunks.
        retrievers: What is joined.
        worth: The share of each in the sum: ranking -> one value for each of its chunks, falling with the rank.
    """

    index: Index
    retrievers: tuple[Retriever, ...]
    worth: tuple[Callable[[Ranking], Scores], ...]

    def retrieve(self, questions: Sequence[str], k: int) -> list[Ranking]:
        """The `k` chunks with the highest sums."""
        check_k(k)
        lists = [retriever.retrieve(questions, max(k, FUSION_DEPTH)) for retriever in self.retrievers]
        return [self.fuse(rankings, k) for rankings in zip(*lists, strict=True)]

    def fuse(self, rankings: Sequence[Ranking], k: int) -> Ranking:
        """One question's rankings by each of the retrievers, joined."""
        sums = np.zeros(len(self.index.chunks), dtype=np.float32)
        for worth, ranking in zip(self.worth, rankings, strict=True):
            sums[ranking.positions] += worth(ranking)
        # In the order of the index, which so decides between equals.
        found = np.unique(np.concatenate([ranking.positions for ranking in rankings]))
        return top(found, sums[found], k)


def reciprocal_ranks(ranking: Ranking) -> Scores:
    """1 / (60 + rank), ranks from 1."""
    return _reciprocals(len(ranking))


@lru_cache(maxsize=512)
def _reciprocals(count: int) -> Scores:
    return (1.0 / (RRF_CONSTANT + np.arange(1, count + 1))).astype(np.float32)


def scaled_scores(weight: float) -> Callable[[Ranking], Scores]:
    """Scores between 0 for the weakest of a ranking and `weight` for its best (all `weight` where they are equal)."""

    def worth(ranking: Ranking) -> Scores:
        if not len(ranking):
            return ranking.scores
        weakest, best = ranking.scores[-1], ranking.scores[0]
        if best == weakest:
            return np.full_like(ranking.scores, weight)
        return np.asarray(weight * (ranking.scores - weakest) / (best - weakest), dtype=np.float32)

    return worth


def _dense(index: Index, config: PipelineConfig) -> Retriever:
    if index.embedder is None:
        raise RagwrightError(
            f"retriever: {config.retriever} needs an embedder, but the embedder is 'none'; try wordllama."
        )
    return DenseRetriever(index, index.embedder, _mask(index, config.filter))


def _sparse(index: Index, config: PipelineConfig) -> Retriever:
    return SparseRetriever(index, _mask(index, config.filter))


def _hybrid(index: Index, config: PipelineConfig) -> Retriever:
    return FusedRetriever(index, (_dense(index, config), _sparse(index, config)), (reciprocal_ranks, reciprocal_ranks))


def _weighted(index: Index, config: PipelineConfig) -> Retriever:
    weights = (config.dense_weight, 1.0 - config.dense_weight)
    return FusedRetriever(index, (_dense(index, config), _sparse(index, config)), tuple(map(scaled_scores, weights)))


RETRIEVERS: dict[str, Callable[[Index, PipelineConfig], Retriever]] = {
    "dense": _dense,
    "sparse": _sparse,
    "hybrid": _hybrid,
    "weighted": _weighted,
}


def _mask(index: Index, text: str) -> Mask | None:
    """Which chunks a filter leaves; None where it leaves all.

    Raises:
        RagwrightError: It cannot be read or leaves nothing.
    """
    conditions = parse_filter(text)
    if not conditions:
        return None
    fitting = {name for name, document in index.documents.items() if matches(conditions, document.metadata)}
    if not fitting:
        keys = sorted({key for document in index.documents.values() for key in document.metadata})
        known = f"the documents' keys are {', '.join(keys[:20])}" if keys else "the documents have no metadata"
        raise RagwrightError(f"filter: {text!r} fits no document; {known}.")
    return np.array([chunk.span.doc_id in fitting for chunk in index.chunks], dtype=bool)
