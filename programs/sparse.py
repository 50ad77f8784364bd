"""BM25 over chunks: kept as a sparse matrix of terms and chunks, from which lexical reranking lives too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from programs.ranking import Positions, Scores
from programs.terms import question_terms

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Questions at a time: their scores are held for every chunk that shares a term.
_AT_ONCE = 1000


class SparseIndex:
    """BM25 (Robertson and Zaragoza, 2009; the variant of Lucene, as scored by bm25s) over numbered chunks.

    Args:
        bm25: An index of bm25s; None where no chunk has a term.
        size: Number of chunks.
    """

    def __init__(self, bm25: Any, size: int) -> None:
        self._bm25, self._size = bm25, size
        self._vocabulary: Mapping[str, int] = {} if bm25 is None else bm25.vocab_dict
        # One stretch for each term: the chunks that have it.
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64) if bm25 is None else bm25.scores["indptr"]
        self._last: _Asked | None = None

    @classmethod
    def build(cls, chunks: Sequence[Sequence[int] | NDArray[np.int32]], vocabulary: Mapping[str, int]) -> Self:
        """Index chunks given as numbers of terms in `vocabulary`."""
        import bm25s

        arrays = [np.asarray(chunk, dtype=np.int32) for chunk in chunks]
        used = np.unique(np.concatenate(arrays)) if arrays else np.empty(0, dtype=np.int32)
        if not len(used):
            return cls(None, len(chunks))
        # Only the terms that occur: a vocabulary is shared by the chunkings of a corpus.
        words = list(vocabulary)
        own = {words[number]: at for at, number in enumerate(used)}
        numbered = [np.searchsorted(used, array).tolist() for array in arrays]
        bm25 = bm25s.BM25(method="lucene")
        bm25.index((numbered, own), show_progress=False)
        return cls(bm25, len(chunks))

    def save(self, folder: Path) -> None:
        """Write it into a new folder."""
        folder.mkdir()
        if self._bm25 is not None:
            self._bm25.save(folder, show_progress=False)

    @classmethod
    def load(cls, folder: Path, size: int) -> Self:
        """Read what `save` wrote for `size` chunks."""
        import bm25s

        written = any(folder.iterdir())
        return cls(bm25s.BM25.load(folder, show_progress=False) if written else None, size)

    def scores(self, questions: Sequence[str]) -> Iterator[tuple[Positions, Scores]]:
        """For each question the chunks that share a term with it, in their order, and their scores, above 0."""
        if len(questions) == 1:
            yield self._scores_of(questions[0])
            return
        for asked in self._asked(questions):
            yield from _rows(asked.counts @ self._weights)

    def _scores_of(self, question: str) -> tuple[Positions, Scores]:
        """The same for one question, term by term: a product of matrices takes three times as long to set up."""
        row = np.zeros(self._size, dtype=np.float32)
        for term, count in Counter(question_terms(question)).items():
            if (number := self._vocabulary.get(term)) is not None:
                stretch = slice(self._starts[number], self._starts[number + 1])
                row[self._bm25.scores["indices"][stretch]] += np.float32(count) * self._bm25.scores["data"][stretch]
        positions = np.flatnonzero(row)
        return positions, row[positions]

    def shares(self, questions: Sequence[str]) -> Iterator[tuple[Positions, Scores]]:
        """As `scores`, but which share of the question's distinct terms a chunk has, rare ones counting more; to 1.

        A term weighs its inverse document frequency; one that occurs nowhere weighs the most.
        """
        for asked in self._asked(questions):
            totals = asked.terms @ self._idf + asked.unknown * _idf(0, self._size)
            for total, (positions, weights) in zip(totals, _rows(asked.terms @ self._presence), strict=True):
                yield positions, (weights / np.float32(total or 1.0)).astype(np.float32)

    def idf(self, term: str) -> float:
        """Inverse document frequency of a term, above 0; highest for a term that occurs nowhere."""
        number = self._vocabulary.get(term)
        return float(_idf(0, self._size) if number is None else self._idf[number])

    @cached_property
    def _idf(self) -> NDArray[np.float64]:
        """Of every term, by its number."""
        return np.asarray(_idf(np.diff(self._starts), self._size))

    @cached_property
    def _weights(self) -> csr_matrix:
        """Terms x chunks: BM25."""
        return self._matrix(np.empty(0, np.float32) if self._bm25 is None else self._bm25.scores["data"])

    @cached_property
    def _presence(self) -> csr_matrix:
        """Terms x chunks: the inverse document frequency of the terms that a chunk has."""
        return self._matrix(np.repeat(self._idf, np.diff(self._starts)).astype(np.float32))

    def _matrix(self, values: NDArray[np.float32]) -> csr_matrix:
        from scipy.sparse import csr_matrix

        chunks = np.empty(0, np.int32) if self._bm25 is None else self._bm25.scores["indices"]
        return csr_matrix((values, chunks, self._starts), (len(self._starts) - 1, self._size))

    def _asked(self, questions: Sequence[str]) -> Iterator[_Asked]:
        """The questions as numbers, some at a time; a screen asks the same ones again and again."""
        for start in range(0, len(questions), _AT_ONCE):
            part = tuple(questions[start : start + _AT_ONCE])
            asked = self._last
            if asked is None or asked.questions != part:
                asked = self._last = _Asked.read(part, self._vocabulary, len(self._starts) - 1)
            yield asked


@dataclass(frozen=True, eq=False)
class _Asked:
    """Questions as terms.

    Attributes:
        questions: As asked.
        counts: Questions x terms: how often a term is asked for.
        terms: The same, but that it is.
        unknown: How many other distinct terms each question has.
    """

    questions: tuple[str, ...]
    counts: csr_matrix
    terms: csr_matrix
    unknown: NDArray[np.int64]

    @classmethod
    def read(cls, questions: tuple[str, ...], vocabulary: Mapping[str, int], size: int) -> Self:
        """Number the terms of the questions, in the order of their words, in a vocabulary of `size`."""
        from scipy.sparse import csr_matrix

        counted = [Counter(question_terms(question)) for question in questions]
        known = [[(vocabulary[term], n) for term, n in counts.items() if term in vocabulary] for counts in counted]
        starts = np.cumsum([0, *map(len, known)])
        table = np.array([pair for row in known for pair in row], dtype=np.int64).reshape(-1, 2)
        shape = (len(questions), size)
        counts = csr_matrix((table[:, 1].astype(np.float32), table[:, 0], starts), shape)
        terms = csr_matrix((np.ones(len(table), dtype=np.float32), table[:, 0], starts), shape)
        unknown = np.array([len(all_) - len(row) for all_, row in zip(counted, known, strict=True)], dtype=np.int64)
        return cls(questions, counts, terms, unknown)


def _rows(product: csr_matrix) -> Iterator[tuple[Positions, Scores]]:
    """Of each question the chunks that it has something in common with, in their order."""
    product.sort_indices()
    positions, values, starts = product.indices.astype(np.intp), product.data, product.indptr.tolist()
    for first, last in pairwise(starts):
        yield positions[first:last], values[first:last]


def _idf(frequency: Any, size: int) -> Any:
    return np.log1p((size - frequency + 0.5) / (frequency + 0.5))
