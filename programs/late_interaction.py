"""Reranking by late interaction: every word of the question looks for its own best match in a passage.

Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT"
(SIGIR 2020): question and passage are embedded apart from each other, a vector for each token; a passage's score is the
sum, over the question's tokens, of the highest similarity that any of its own tokens has.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from programs.cross_encoding import (
    TOKENIZER_FILES,
    Pair,
    ScoringModel,
    check_installed,
    find_folder,
    find_published,
    loading_fastembed,
    running,
)
from programs.embedding import Vectors, open_embedder
from programs.model_folder import folder_fingerprint
from programs.ranking import Ranking, Scores, check_k
from programs.terms import question_terms, terms

if TYPE_CHECKING:
    from programs.index import Index

Numbers = NDArray[np.intp]

STATIC_MODEL = "wordllama"
"""The embedder of `maxsim`: its vectors do not depend on the text around a word."""

# A kilobyte each.
_TERMS_KEPT = 200_000
# Questions that are looked at together, and the most similarities of their terms to those of their passages (64 MB).
_QUESTIONS_AT_ONCE = 128
_SIMILARITIES = 16_000_000

_PASSAGES_AT_ONCE = 32
_BYTES_KEPT = 256 * 2**20

COLBERT_FILES = {"model.onnx": "colbert-ir/colbertv2.0", "vespa_colbert.onnx": "answerdotai/answerai-colbert-small-v1"}
"""Where a folder may hold the weights of a late-interaction model -> whose conventions it is read by."""


class TermVectors:
    """Unit vectors of terms, numbered as they come; each is computed once. Safe to use from many threads."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._rows = np.zeros((0, 0), dtype=np.float32)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, found: Iterable[str]) -> Numbers:
        """One number for each term."""
        with self._lock:
            numbers = self._numbers
            return np.array([numbers.setdefault(term, len(numbers)) for term in found], dtype=np.intp)

    def rows(self) -> Vectors:
        """The vectors of all terms that have a number; zeros for an empty one."""
        with self._lock:
            if len(self._numbers) > len(self._rows):
                added = open_embedder(STATIC_MODEL).embed(list(islice(self._numbers, len(self._rows), None)))
                self._rows = np.concatenate([self._rows, added]) if len(self._rows) else added
            return self._rows


class MaxSimReranker:
    """Late interaction without a model to run: the vector of a word is the same wherever it stands.

    A passage scores the mean, over the question's terms, of the highest cosine that any of its own terms has to it. A
    term weighs its inverse document frequency in the index. Where all cosines were 0 or 1, this would be the lexical
    reranker.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._memory: tuple[TermVectors, dict[int, Numbers]] = (_shared_vectors(), {})
        self._lock = threading.Lock()

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The `k` best of each ranking; scores in [0, 1], all 0 where a question has no terms."""
        check_k(k)
        vectors, known = self._remembered()
        asked = [self._ask(question, vectors) for question in questions]
        passages = [ranking.positions.tolist() for ranking in rankings]
        for at in {at for own in passages for at in own if at not in known}:
            known[at] = vectors.number(dict.fromkeys(terms(self.index.texts[at])) or [""])
        # Taken once, as others may number more terms meanwhile.
        rows = vectors.rows()
        scores: list[Scores] = []
        for start in range(0, len(asked), _QUESTIONS_AT_ONCE):
            part = slice(start, start + _QUESTIONS_AT_ONCE)
            scores += _scores(rows, asked[part], passages[part], known)
        return [Ranking.best(ranking.positions, own, k) for ranking, own in zip(rankings, scores, strict=True)]

    def _ask(self, question: str, vectors: TermVectors) -> Asked:
        found = list(dict.fromkeys(question_terms(question)))
        weights = np.array([self.index.sparse.idf(term) for term in found], dtype=np.float32)
        return Asked(vectors.number(found), weights / (weights.sum() or 1.0))

    def _remembered(self) -> tuple[TermVectors, dict[int, Numbers]]:
        """The shared vectors, and the numbers that the terms of chunks have there, of chunks that were looked at."""
        vectors = _shared_vectors()
        with self._lock:
            if self._memory[0] is not vectors:
                self._memory = (vectors, {})
            return self._memory


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question as `maxsim` sees it.

    Attributes:
        numbers: Of its distinct terms.
        weights: One for each; their sum is 1.
    """

    numbers: Numbers
    weights: Scores


class ColbertScorer:
    """A model like ColBERT on ONNX Runtime; the vectors of passages are kept in memory, up to a size.

    Args:
        name: The name that configurations give it, for messages.
        model: fastembed's `LateInteractionTextEmbedding`.
    """

    def __init__(self, name: str, model: Any) -> None:
        self._name, self._model = name, model
        self._passages: OrderedDict[str, Vectors] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def score(self, pairs: Sequence[Pair]) -> Iterator[Mapping[Pair, float]]:
        """Score passage by passage, each with all its questions; in [-1, 1], the mean over the question's tokens.

        Raises:
            RagwrightError: The model fails.
        """
        asking: dict[str, list[str]] = {}
        for question, text in pairs:
            asking.setdefault(text, []).append(question)
        questions = dict.fromkeys(question for question, _ in pairs)
        with self._lock, running(self._name):
            vectors = dict(zip(questions, map(_unit_rows, self._model.query_embed(list(questions))), strict=True))
        texts = sorted(asking, key=len)
        for start in range(0, len(texts), _PASSAGES_AT_ONCE):
            part = texts[start : start + _PASSAGES_AT_ONCE]
            passages = self._embed(part)
            yield {
                (question, text): _mean_of_best(vectors[question], passages[text])
                for text in part
                for question in asking[text]
            }

    def _embed(self, texts: list[str]) -> dict[str, Vectors]:
        # One batch keeps all cores at work; two at once would only take them from each other.
        with self._lock, running(self._name):
            found = {text: self._passages[text] for text in texts if text in self._passages}
            missing = [text for text in texts if text not in found]
            found |= zip(missing, map(_unit_rows, self._model.embed(missing)), strict=True)
            for text, vectors in found.items():
                self._keep(text, vectors)
        return found

    def _keep(self, text: str, vectors: Vectors) -> None:
        """Remember a passage as the last one used, and forget those that were not used for longest."""
        self._bytes += vectors.nbytes if text not in self._passages else 0
        self._passages[text] = vectors
        self._passages.move_to_end(text)
        while self._bytes > _BYTES_KEPT and len(self._passages) > 1:
            self._bytes -= self._passages.popitem(last=False)[1].nbytes


def find_colbert(model: str) -> ScoringModel:
    """A late-interaction model on ONNX Runtime, by fastembed.

    Args:
        model: A name from `LateInteractionTextEmbedding.list_supported_models()`, or a folder with one of
            `COLBERT_FILES` and the tokenizer.

    Raises:
        MissingExtraError: fastembed is not installed.
        RagwrightError: There is no such model.
    """
    name = f"colbert:{model}"
    folder = find_folder(name, model, tuple(COLBERT_FILES), TOKENIZER_FILES)
    check_installed(name, "fastembed")
    if folder is None:
        from fastembed import LateInteractionTextEmbedding

        model = find_published(name, model, LateInteractionTextEmbedding.list_supported_models())
    which = f"folder {folder_fingerprint(folder)}" if folder else model
    identity = f"fastembed late interaction {version('fastembed')} {which}"
    return ScoringModel(name, identity, lambda: _colbert(name, folder, which))


@lru_cache(maxsize=2)
def _colbert(name: str, folder: Path | None, which: str) -> ColbertScorer:
    """Load the model; `which` is there to load a folder anew after a change."""
    from fastembed import LateInteractionTextEmbedding

    with loading_fastembed(name, folder):
        if folder is None:
            return ColbertScorer(name, LateInteractionTextEmbedding(which))
        like = next(model for file, model in COLBERT_FILES.items() if (folder / file).is_file())
        return ColbertScorer(name, LateInteractionTextEmbedding(like, specific_model_path=str(folder)))


_vectors = TermVectors()


def _shared_vectors() -> TermVectors:
    """The vectors that all indexes share; new ones where the old have become too many."""
    global _vectors
    if len(_vectors) > _TERMS_KEPT:
        _vectors = TermVectors()
    return _vectors


def _scores(
    rows: Vectors, asked: Sequence[Asked], passages: Sequence[list[int]], known: Mapping[int, Numbers]
) -> list[Scores]:
    """For each question, one score for each of its passages.

    Args:
        rows: Vectors of all numbered terms.
        asked: The questions.
        passages: Which chunks were retrieved for each.
        known: The numbers of their terms.
    """
    chunks = {at for own in passages for at in own}
    wanted, row_of = _distinct([question.numbers for question in asked], len(rows))
    present, column_of = _distinct([known[at] for at in chunks], len(rows))
    if len(wanted) * len(present) > _SIMILARITIES and len(asked) > 1:
        half = len(asked) // 2
        first = _scores(rows, asked[:half], passages[:half], known)
        return first + _scores(rows, asked[half:], passages[half:], known)
    similarities = np.clip(rows[wanted] @ rows[present].T, 0.0, 1.0)
    columns = {at: column_of[known[at]] for at in chunks}
    return [
        _weighted_best(question.weights, similarities[row_of[question.numbers]], [columns[at] for at in own])
        for question, own in zip(asked, passages, strict=True)
    ]


def _distinct(groups: Sequence[Numbers], size: int) -> tuple[Numbers, Numbers]:
    """The distinct numbers in all groups, and for each number below `size` its place among them."""
    present = np.zeros(size, dtype=bool)
    for numbers in groups:
        present[numbers] = True
    return present.nonzero()[0], np.cumsum(present) - 1


def _weighted_best(weights: Scores, similarities: Vectors, columns: Sequence[Numbers]) -> Scores:
    """One score for each passage: the mean, over the question's terms, of the best similarity to a term of the passage.

    Args:
        weights: Of the question's terms; their sum is 1.
        similarities: A row for each of these terms.
        columns: Which of them each passage has, at least one.
    """
    if not len(weights) or not columns:
        return np.zeros(len(columns), dtype=np.float32)
    starts = np.cumsum([0, *map(len, columns[:-1])])
    best = np.maximum.reduceat(similarities[:, np.concatenate(columns)], starts, axis=1)
    # Added up term by term, so that passages with equal matches score the same to the last bit.
    return np.asarray((weights[:, np.newaxis] * best).sum(axis=0), dtype=np.float32)


def _unit_rows(rows: Any) -> Vectors:
    vectors = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _mean_of_best(question: Vectors, passage: Vectors) -> float:
    if not len(passage):
        return 0.0
    return float((question @ passage.T).max(axis=1).mean())
