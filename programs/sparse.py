"""BM25 over chunks, in memory, and the terms that it counts."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(f"([{_CJK}]+)|[^\\W{_CJK}]+")


def terms(text: str) -> list[str]:
    """The words of `text`, lower-cased and without English stop words, in order and with repetitions.

    Chinese and Japanese have no spaces between words: their runs give overlapping pairs of characters, as in Lucene's
    CJK analyzer.
    """
    found: list[str] = []
    for match in _WORDS.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = match.group()
        if match.group(1) and len(word) > 1:
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        elif word not in _stop_words():
            found.append(word)
    return found


class SparseIndex:
    """BM25 (Robertson and Zaragoza, 2009; the variant of Lucene, as scored by bm25s) over a list of texts.

    Args:
        texts: A text's position in this list is its number in `scores`.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        documents = [terms(text) for text in texts]
        self._frequencies = Counter(term for document in documents for term in set(document))
        self._size = len(documents)
        self._bm25 = bm25s.BM25(method="lucene")
        if self._frequencies:
            self._bm25.index(documents, show_progress=False)

    def scores(self, question: str) -> NDArray[np.float32]:
        """One score for each text, 0 or above; 0 where no term of the question occurs."""
        known = [term for term in terms(question) if term in self._frequencies]
        if not known:
            return np.zeros(self._size, dtype=np.float32)
        scores: NDArray[np.float32] = self._bm25.get_scores(known)
        return scores

    def idf(self, term: str) -> float:
        """Inverse document frequency of a term as in `terms`, above 0; highest for a term that occurs nowhere."""
        frequency = self._frequencies[term]
        return math.log1p((self._size - frequency + 0.5) / (frequency + 0.5))


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    return frozenset(STOPWORDS_EN_PLUS)
