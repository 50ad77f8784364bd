"""BM25 over chunks: kept as a sparse matrix of terms and chunks, from which lexical reranking lives too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
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
        return self._products(questions, self._weights, counted=True)

    def shares(self, questions: Sequence[str]) -> Iterator[tuple[Positions, Scores]]:
        """As `scores`, but which share of the question's distinct terms a chunk has, rare ones counting more; to 1.

        A term weighs its inverse document frequency; one that occurs nowhere weighs the most.
        """
        found = self._products(questions, self._presence, counted=False)
        for question, (positions, weights) in zip(questions, found, strict=True):
            total = sum(map(self.idf, dict.fromkeys(question_terms(question))))
            yield positions, (weights / np.float32(total or 1.0)).astype(np.float32)

    def idf(self, term: str) -> float:
        """Inverse document frequency of a term, above 0; highest for a term that occurs nowhere."""
        number = self._vocabulary.get(term)
        frequency = 0 if number is None else int(self._starts[number + 1] - self._starts[number])
        return float(np.log1p((self._size - frequency + 0.5) / (frequency + 0.5)))

    @cached_property
    def _weights(self) -> csr_matrix:
        """Terms x chunks: BM25."""
        return self._matrix(np.empty(0, np.float32) if self._bm25 is None else self._bm25.scores["data"])

    @cached_property
    def _presence(self) -> csr_matrix:
        """Terms x chunks: the inverse document frequency of the terms that a chunk has."""
        frequencies = np.diff(self._starts)
        idf = np.log1p((self._size - frequencies + 0.5) / (frequencies + 0.5))
        return self._matrix(np.repeat(idf, frequencies).astype(np.float32))

    def _matrix(self, values: NDArray[np.float32]) -> csr_matrix:
        from scipy.sparse import csr_matrix

        chunks = np.empty(0, np.int32) if self._bm25 is None else self._bm25.scores["indices"]
        return csr_matrix((values, chunks, self._starts), (len(self._starts) - 1, self._size))

    def _products(
        self, questions: Sequence[str], matrix: csr_matrix, *, counted: bool
    ) -> Iterator[tuple[Positions, Scores]]:
        """Of each question with every chunk that shares a term; sums run in the order of the question's terms."""
        for start in range(0, len(questions), _AT_ONCE):
            part = questions[start : start + _AT_ONCE]
            product = self._asked(part, counted) @ matrix
            product.sort_indices()
            positions, values, starts = product.indices.astype(np.intp), product.data, product.indptr.tolist()
            for row in range(len(part)):
                yield positions[starts[row] : starts[row + 1]], values[starts[row] : starts[row + 1]]

    def _asked(self, questions: Sequence[str], counted: bool) -> csr_matrix:
        """Questions x terms: how often a term is asked for, or that it is."""
        from scipy.sparse import csr_matrix

        rows: list[dict[int, float]] = []
        for question in questions:
            counts: dict[int, float] = {}
            for term in question_terms(question):
                number = self._vocabulary.get(term)
                if number is not None:
                    counts[number] = counts.get(number, 0.0) + 1.0 if counted else 1.0
            rows.append(counts)
        starts = np.cumsum([0, *map(len, rows)])
        numbers = np.fromiter((number for row in rows for number in row), dtype=np.int64, count=starts[-1])
        values = np.fromiter((value for row in rows for value in row.values()), dtype=np.float32, count=starts[-1])
        return csr_matrix((values, numbers, starts), (len(rows), len(self._starts) - 1))
