"""The sentences of a corpus, the terms in each, and where a phrase occurs among them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from optimize.data.locating.text import Range, Token, paragraphs, sentences, words
from optimize.data.locating.values import values
from programs.terms import terms
from programs.types import Document

Numbers = NDArray[np.intp]
"""Numbers of sentences or of tokens, ascending."""
Shares = NDArray[np.float64]

_SUFFIXES = ("ingly", "edly", "ations", "ation", "ings", "ing", "ies", "ied", "es", "ed", "ly", "s", "e", "y")
_STEM = 7
_SIMILAR = 80
_SHORTEST_MISSPELT = 4


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where an answer's words stand in the corpus.

    Attributes:
        sentence: Number of the sentence that they begin in.
        span: Offsets in the sentence's document.
        answer: Number of the answer among the question's answers.
        exact: Whether the text has the answer letter by letter.
    """

    sentence: int
    span: Range
    answer: int
    exact: bool


class SentenceIndex:
    """The sentences of some documents, numbered in order.

    Attributes:
        documents: The documents.
        document: For each sentence the number of its document.
        spans: For each sentence its offsets.
        paragraph: For each sentence the number of its paragraph.
        compared: The forms of a sentence, by its number, joined by spaces.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        self.spans: list[Range] = []
        owners: list[int] = []
        blocks: list[int] = []
        self._words, self._values = _Phrases(), _Phrases()
        holding: dict[str, list[int]] = defaultdict(list)
        for number, document in enumerate(documents):
            first, found = len(self.spans), sentences(document.text)
            begun = [start for start, _ in paragraphs(document.text)]
            inside = np.searchsorted(begun, [start for start, _ in found], side="right")
            blocks += ((blocks[-1] if blocks else 0) + inside).tolist()
            self.spans += found
            owners += [number] * len(found)
            tokens = words(document.text)
            starts = [start for start, _ in found]
            self._words.add(tokens, first, starts)
            valued = values(document.text, tokens)
            for token, sentence in zip(valued, self._values.add(valued, first, starts), strict=True):
                for term in key_terms([token]):
                    holding[term].append(sentence)
        self.document: Numbers = np.array(owners, dtype=np.intp)
        self.paragraph: Numbers = np.array(blocks, dtype=np.intp)
        self._holding = {term: np.unique(numbers) for term, numbers in holding.items()}
        self._vocabulary = _by_first_letter(self._holding)
        self._similar = lru_cache(maxsize=100_000)(self._find_similar)
        self.compared = lru_cache(maxsize=200_000)(self._compared)
        self._follows = np.append(False, self.document[1:] == self.document[:-1])
        self._goes_on = np.append(self._follows[1:], False)

    def __len__(self) -> int:
        return len(self.spans)

    def text(self, first: int, last: int | None = None) -> str:
        """The text of a sentence, or from one to another of the same document."""
        document = self.documents[self.document[first]]
        return document.text[self.spans[first][0] : self.spans[first if last is None else last][1]]

    def _compared(self, number: int) -> str:
        return compared(values(self.text(number)))

    def around(self, sentence: int, reach: int = 1) -> tuple[int, int]:
        """The first and the last of the sentences about one in its paragraph, at most `reach` away on each side."""
        first = last = sentence
        while sentence - first < reach and first > 0 and self.paragraph[first - 1] == self.paragraph[sentence]:
            first -= 1
        while last - sentence < reach and last + 1 < len(self) and self.paragraph[last + 1] == self.paragraph[sentence]:
            last += 1
        return first, last

    def rarity(self, term: str) -> float:
        """Inverse document frequency over sentences as a share of the largest, in (0, 1]; 1: occurs nowhere."""
        frequency, size = len(self._holding.get(term, ())), len(self)
        return math.log1p((size - frequency + 0.5) / (frequency + 0.5)) / math.log1p((size + 0.5) / 0.5)

    def shares(self, wanted: Sequence[str], numbers: Numbers) -> tuple[Shares, Shares]:
        """For each sentence the share of the terms that it has, and the share that only a sentence beside it has.

        Terms weigh by `rarity`. A term that occurs nowhere is taken for the most similar ones that do, at a discount.
        """
        here = np.zeros((len(wanted), len(numbers)))
        beside = np.zeros_like(here)
        for row, term in enumerate(wanted):
            for known, similarity in self._similar(term):
                holding = self._holding[known]
                before = _within(numbers - 1, holding) & self._follows[numbers]
                after = _within(numbers + 1, holding) & self._goes_on[numbers]
                here[row] = np.maximum(here[row], similarity * _within(numbers, holding))
                beside[row] = np.maximum(beside[row], similarity * (before | after))
        weights = np.array([self.rarity(term) for term in wanted])
        total = weights.sum() or 1.0
        return weights @ here / total, weights @ np.maximum(beside - here, 0.0) / total

    def best(self, wanted: Iterable[str], count: int) -> Numbers:
        """The sentences with the rarest of the terms, counting a little for those beside them, at most `count`."""
        scores = np.zeros(len(self))
        for term in wanted:
            for known, similarity in self._similar(term):
                scores[self._holding[known]] += similarity * self.rarity(term)
        scores[1:] += 0.3 * scores[:-1] * self._follows[1:]
        top = np.argsort(-scores, kind="stable")[:count] if len(self) <= count else _largest(scores, count)
        return np.sort(top[scores[top] > 0])

    def occurrences(self, answers: Sequence[str]) -> list[Occurrence]:
        """Every place of every answer, in any writing; one that is nowhere is tried without small words at its ends."""
        found: dict[tuple[int, Range, int], Occurrence] = {}
        for number, answer in enumerate(answers):
            for phrases, read in ((self._words, words), (self._values, values)):
                tokens = read(answer)
                places = phrases.find(tokens) or (phrases.find(_core(tokens)) if read is values else [])
                for sentence, span in places:
                    occurrence = self._occurrence(sentence, span, answer, number, tokens)
                    found.setdefault((number, occurrence.span, sentence), occurrence)
        return sorted(found.values(), key=lambda one: (one.sentence, one.span, one.answer))

    def _occurrence(self, sentence: int, span: Range, answer: str, number: int, tokens: Sequence[Token]) -> Occurrence:
        """The occurrence with the answer's own punctuation at its ends where the text has it too."""
        text = self.documents[self.document[sentence]].text
        start = span[0] - tokens[0].start
        whole = (start, start + len(answer))
        if start >= 0 and text[whole[0] : whole[1]] == answer:
            return Occurrence(sentence, whole, number, exact=True)
        return Occurrence(sentence, span, number, exact=False)

    def _find_similar(self, term: str) -> tuple[tuple[str, float], ...]:
        """The term itself, or where it occurs nowhere, up to two of the same first letter that look like it."""
        if term in self._holding:
            return ((term, 1.0),)
        if len(term) < _SHORTEST_MISSPELT or term[0].isdigit():
            return ()
        from rapidfuzz import fuzz, process

        near = process.extract(
            term, self._vocabulary.get(term[0], []), scorer=fuzz.ratio, score_cutoff=_SIMILAR, limit=2
        )
        return tuple((known, score / 100) for known, score, _ in near)


class _Phrases:
    """Where runs of forms occur. Documents are kept apart by a token that nothing matches."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._sentences: list[int] = []
        self._positions: dict[str, list[int]] = defaultdict(list)
        self._arrays: dict[str, Numbers] = {}

    def add(self, tokens: Sequence[Token], first: int, starts: Sequence[int]) -> list[int]:
        """Add a document whose sentences, numbered from `first`, begin at `starts`; returns each token's sentence."""
        inside = np.searchsorted(starts, [token.start for token in tokens], side="right") - 1
        numbers: list[int] = (first + np.maximum(inside, 0)).tolist()
        for position, token in enumerate(tokens, start=len(self._starts)):
            for form in (token.form, *token.others):
                self._positions[form].append(position)
        self._starts += [token.start for token in tokens] + [-1]
        self._ends += [token.end for token in tokens] + [-1]
        self._sentences += [*numbers, -1]
        return numbers

    def find(self, tokens: Sequence[Token]) -> list[tuple[int, Range]]:
        """Sentence and offsets of each place where the forms of the tokens follow one another."""
        if not tokens:
            return []
        runs = sorted((self._array(token.form) - offset for offset, token in enumerate(tokens)), key=len)
        firsts = runs[0]
        for run in runs[1:]:
            firsts = firsts[_within(firsts, run)]
        last = len(tokens) - 1
        return [(self._sentences[at], (self._starts[at], self._ends[at + last])) for at in firsts.tolist()]

    def _array(self, form: str) -> Numbers:
        if form not in self._arrays:
            self._arrays[form] = np.array(self._positions.get(form, ()), dtype=np.intp)
        return self._arrays[form]


def compared(tokens: Iterable[Token]) -> str:
    """The forms of tokens, joined by spaces: what is compared letter by letter."""
    return " ".join(token.form for token in tokens)


def key_terms(tokens: Iterable[Token]) -> list[str]:
    """The forms of the tokens, further ones too, without English stop words and endings, in order."""
    stems = (_stem(form) for token in tokens for form in (token.form, *token.others))
    return [stem for stem in stems if stem]


@lru_cache(maxsize=200_000)
def _stem(form: str) -> str:
    """A word without its English ending and cut to seven letters, so that `founded` meets `founding`; numbers stay."""
    if not terms(form):
        return ""
    if not form.isalpha():
        return form
    ending = next((end for end in _SUFFIXES if form.endswith(end) and len(form) - len(end) >= 3), "")
    bare = form.removesuffix(ending) if form.isascii() and len(form) > 3 else form
    return bare[:_STEM]


def _core(tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens without stop words at either end."""
    kept = [at for at, token in enumerate(tokens) if _stem(token.form)]
    return tokens[kept[0] : kept[-1] + 1] if kept else []


def _by_first_letter(known: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for term in known:
        if len(term) >= _SHORTEST_MISSPELT - 1:
            grouped[term[0]].append(term)
    return grouped


def _within(numbers: Numbers, among: Numbers) -> NDArray[np.bool_]:
    """For each of the numbers whether it is one of the others, which ascend."""
    if not len(among):
        return np.zeros(len(numbers), dtype=bool)
    at = np.minimum(np.searchsorted(among, numbers), len(among) - 1)
    return among[at] == numbers


def _largest(scores: Shares, count: int) -> Numbers:
    return np.argpartition(-scores, count)[:count]
