"""Reranking: a second look at what was retrieved, before the LM reads the best of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from programs.api_reranking import check_api_name, find_api_model
from programs.cross_encoding import (
    CROSS_ENCODER_FILES,
    TOKENIZER_FILES,
    PairReranker,
    ScoringModel,
    check_installed,
    find_fastembed,
    find_folder,
    find_sentence_transformers,
)
from programs.embedding import Embedder, Vectors, embedder_identity
from programs.errors import RagwrightError
from programs.late_interaction import COLBERT_FILES, STATIC_MODEL, MaxSimReranker, find_colbert
from programs.ranking import Ranking, Scores, check_k

if TYPE_CHECKING:
    from programs.index import Index

# What relevance weighs against novelty in `mmr`, in [0, 1].
MMR_RELEVANCE = 0.7

LISTWISE = frozenset({"mmr", "llm"})
"""Rerankers for which a chunk's place depends on what else was retrieved; for all others its score does not."""

# The vectors of all passages of so many questions are held at a time.
_QUESTIONS_AT_ONCE = 128
# Products of equal vectors differ in their last bits by their place in a matrix; ties must not depend on that.
_DECIMALS = 6


class Reranker(Protocol):
    """Puts retrieved chunks into a new order.

    A result is a selection of the given ranking, at most `k` of it, with new scores, best first; equal scores keep the
    order of retrieval, and the result for a small `k` is the beginning of that for a large one. Calls come from many
    threads.
    """

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The `k` best of each ranking.

        Args:
            questions: As asked.
            rankings: What was retrieved, one for each question.
            k: At least 1.

        Raises:
            RagwrightError: `k` is below 1, or a model cannot be loaded or fails.
        """
        ...


class NoReranker:
    """Keeps the order and the scores of retrieval."""

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The first `k` of each ranking."""
        check_k(k)
        return [ranking.first(k) for _, ranking in zip(questions, rankings, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class LexicalReranker:
    """Chunks by how much of the question's words they have, rare words counting more."""

    index: Index

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The `k` that have the largest shares of their question's distinct terms, weighted by IDF; in [0, 1]."""
        check_k(k)
        row = np.zeros(len(self.index.chunks), dtype=np.float32)
        found = []
        for ranking, (positions, shares) in zip(rankings, self.index.sparse.shares(questions), strict=True):
            row[positions] = shares
            found.append(Ranking.best(ranking.positions, row[ranking.positions], k))
            row[positions] = 0.0
        return found


@dataclass(frozen=True, slots=True, eq=False)
class MMRReranker:
    """Maximal marginal relevance: chunks that are near to the question and far from those already chosen.

    Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries" (SIGIR 1998). A chunk that points away from all chosen ones is as new as one that is unlike them.
    """

    index: Index
    embedder: Embedder

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """Choose `k` chunks one by one; a score is the chunk's marginal relevance when it was chosen."""
        check_k(k)
        if not any(map(len, rankings)):
            return [ranking.first(k) for _, ranking in zip(questions, rankings, strict=True)]
        asked = self.embedder.embed_questions(questions)
        chosen: list[Ranking] = []
        for start in range(0, len(rankings), _QUESTIONS_AT_ONCE):
            part = slice(start, start + _QUESTIONS_AT_ONCE)
            chosen += self._choose(asked[part], rankings[part], k)
        assert len(chosen) == len(questions), "one ranking for each question"
        return chosen

    def _choose(self, asked: Vectors, rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """Choose for all questions at the same time, in a table of a row for each, filled up to the longest ranking."""
        lengths = np.array([len(ranking) for ranking in rankings])
        width = int(lengths.max())
        waiting = np.arange(width) < lengths[:, np.newaxis]
        positions = np.zeros((len(rankings), width), dtype=np.intp)
        positions[waiting] = np.concatenate([ranking.positions for ranking in rankings])
        vectors = self.index.vectors_of(positions.ravel()).reshape(len(rankings), width, -1)
        steps = min(k, width)
        found = np.zeros((len(rankings), steps), dtype=np.intp)
        scores = np.zeros((len(rankings), steps), dtype=np.float32)
        relevance = _cosines(vectors, asked)
        redundancy = np.zeros_like(relevance)
        rows = np.arange(len(rankings))
        for step in range(steps):
            marginal = MMR_RELEVANCE * relevance - (1 - MMR_RELEVANCE) * redundancy
            best = np.where(waiting, marginal, -np.inf).argmax(axis=1)
            found[:, step], scores[:, step] = positions[rows, best], marginal[rows, best]
            waiting[rows, best] = False
            redundancy = np.maximum(redundancy, _cosines(vectors, vectors[rows, best]))
        ends = np.minimum(lengths, steps).tolist()
        return [Ranking(found[row, :end], scores[row, :end]) for row, end in enumerate(ends)]


def _cosines(vectors: Vectors, others: Vectors) -> Scores:
    """Of each row's vectors to the one vector of that row."""
    return np.round((vectors @ others[:, :, np.newaxis])[:, :, 0], _DECIMALS)


def _none(index: Index) -> Reranker:
    return NoReranker()


def _mmr(index: Index) -> Reranker:
    if index.embedder is None:
        raise RagwrightError("reranker: mmr needs an embedder, but the embedder is 'none'; try wordllama.")
    return MMRReranker(index, index.embedder)


def _llm(index: Index) -> Reranker:
    from programs.listwise import ListwiseReranker

    return ListwiseReranker(index)


RERANKERS: dict[str, Callable[[Index], Reranker]] = {
    "none": _none,
    "lexical": LexicalReranker,
    "mmr": _mmr,
    "maxsim": MaxSimReranker,
    "llm": _llm,
}
"""Rerankers that are named by one word."""

NEEDS_LM = frozenset({"llm"})
"""Those of them that ask a language model."""


@dataclass(frozen=True, slots=True)
class ModelKind:
    """Models on this machine of one kind: `kind:MODEL`, where the model is a published name or a folder.

    Attributes:
        package: What runs them; also the name of the extra.
        weights: Files of which a folder must have one.
        others: Files that a folder must have all.
        find: The model's part of the name -> the model.
    """

    package: str
    weights: tuple[str, ...]
    others: tuple[str, ...]
    find: Callable[[str], ScoringModel]


MODELS: dict[str, ModelKind] = {
    "fastembed": ModelKind("fastembed", CROSS_ENCODER_FILES, TOKENIZER_FILES, find_fastembed),
    "colbert": ModelKind("fastembed", tuple(COLBERT_FILES), TOKENIZER_FILES, find_colbert),
    "sentence-transformers": ModelKind("sentence-transformers", ("config.json",), (), find_sentence_transformers),
}
"""Kind of model -> how it is found."""


def open_reranker(name: str, index: Index) -> Reranker:
    """The reranker of that name. A model is loaded when it has to score something for the first time.

    Args:
        name: A name in `RERANKERS`; `fastembed:MODEL` or `sentence-transformers:MODEL` for a cross-encoder and
            `colbert:MODEL` for a late-interaction model, where the model is a published name or a folder; or
            `provider/model` for an API, such as `cohere/rerank-v3.5`, to which the provider's usual variables apply:
            `COHERE_API_KEY`, `COHERE_API_BASE` and the like.
        index: Holds the chunks; in its cache folder the scores of models are kept.

    Raises:
        MissingExtraError: The model's package is not installed.
        RagwrightError: There is no such reranker, or it does not go with the index.
    """
    if name in RERANKERS:
        return RERANKERS[name](index)
    return PairReranker(index, _find_model(name))


def reranker_identity(name: str) -> str:
    """What tells the scores of one reranker from those of another: the name with a model's version, weights, endpoint.

    Raises:
        MissingExtraError: The model's package is not installed.
        RagwrightError: There is no such reranker.
    """
    if name == "maxsim":
        return f"{name} {embedder_identity(STATIC_MODEL)}"
    return name if name in RERANKERS else _find_model(name).identity


def check_reranker(name: str) -> None:
    """Refuse a name that cannot be right. No model is loaded and no package imported: that takes seconds.

    Raises:
        MissingExtraError: The model's package is not installed.
        RagwrightError: There is no such reranker, or a model's folder lacks a file.
    """
    if name in RERANKERS:
        return
    kind, model = _split(name)
    if kind is None:
        return check_api_name(name)
    check_installed(name, kind.package)
    find_folder(name, model, kind.weights, kind.others)


def _find_model(name: str) -> ScoringModel:
    kind, model = _split(name)
    return find_api_model(name) if kind is None else kind.find(model)


def _split(name: str) -> tuple[ModelKind | None, str]:
    """The kind and the model of a name; no kind for that of an API.

    Raises:
        RagwrightError: It is neither.
    """
    kind, _, model = name.partition(":")
    if kind in MODELS and model:
        return MODELS[kind], model
    if kind in MODELS or "/" not in name:
        choices = ", ".join([*RERANKERS, *(f"{kind}:MODEL" for kind in MODELS)])
        raise RagwrightError(
            f"reranker: {name!r} is unknown; choose {choices}, or provider/model such as cohere/rerank-v3.5."
        )
    return None, name
