"""The terms of a text: what BM25 and lexical reranking count."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from programs.corpus import Corpus

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(f"([{_CJK}]+)|[^\\W{_CJK}]+")


def terms(text: str) -> list[str]:
    """The words of `text`, lower-cased and without English stop words, in order and with repetitions.

    Chinese and Japanese have no spaces between words: their runs give overlapping pairs of characters, as in Lucene's
    CJK analyzer.
    """
    return [term for term, _, _ in _located(text)]


@lru_cache(maxsize=50_000)
def question_terms(question: str) -> tuple[str, ...]:
    """`terms`, remembered: a question is asked of many indexes."""
    return tuple(terms(question))


class CorpusTerms:
    """The terms of every document of a corpus, numbered; each document is read once, whatever its chunks are.

    Attributes:
        vocabulary: Term -> number. It grows with `ids_of`.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.vocabulary: dict[str, int] = {}
        self._documents = {document.id: self._read(document.text) for document in corpus.documents}

    def ids(self, doc_id: str, start: int, end: int) -> NDArray[np.int32]:
        """Numbers of the terms that lie wholly within a range of a document's characters."""
        numbers, starts, ends = self._documents[doc_id]
        return numbers[np.searchsorted(starts, start) : np.searchsorted(ends, end, side="right")]

    def ids_of(self, text: str) -> list[int]:
        """Numbers of the terms of any text."""
        return [self._number(term) for term in terms(text)]

    def _number(self, term: str) -> int:
        return self.vocabulary.setdefault(term, len(self.vocabulary))

    def _read(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.intp]]:
        found = [(self._number(term), start, end) for term, start, end in _located(text)]
        table = np.array(found, dtype=np.intp).reshape(-1, 3)
        return table[:, 0].astype(np.int32), table[:, 1].copy(), table[:, 2].copy()


def _located(text: str) -> Iterator[tuple[str, int, int]]:
    """Terms with their offsets, starts and ends ascending."""
    for match in _WORDS.finditer(text):
        start, end = match.span()
        if match.group(1) and end - start > 1:
            for at in range(start, end - 1):
                yield unicodedata.normalize("NFKC", text[at : at + 2]), at, at + 2
        else:
            for term in _word_terms(match.group()):
                yield term, start, end


@lru_cache(maxsize=200_000)
def _word_terms(word: str) -> tuple[str, ...]:
    """What one word of the text counts as: mostly itself; nothing for a stop word."""
    found = [match.group() for match in _WORDS.finditer(unicodedata.normalize("NFKC", word).casefold())]
    return tuple(term for term in found if term not in _stop_words())


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    return frozenset(STOPWORDS_EN_PLUS)
