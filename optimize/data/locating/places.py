"""From sentences that may state an answer to places that can be evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from optimize.data.example import Fact, Place
from optimize.data.locating.index import SentenceIndex, compared, key_terms
from optimize.data.locating.support import FEATURES, SURE, Candidates
from optimize.data.locating.text import Range, Token
from optimize.data.locating.values import values
from programs.types import Span

Method = Literal["exact", "normalized", "fuzzy", "passage"]
METHODS: tuple[Method, ...] = ("exact", "normalized", "fuzzy", "passage")

WORTH_SHOWING = 0.05
"""Confidence from which a place is proposed at all."""
ALIKE = 0.7
"""A place that states the answer word for word is as good as the best if it has this share of its probability."""

_PROPOSALS = 3
_MOST_ALIKE = 3
_MOST_COPIES = 20
_TELLING = 0.3
_SAME, _SAME_WORD = 85, 75
_SHORTEST_FUZZY = 6
_ADDS = 0.6


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where an answer may be stated.

    Attributes:
        method: How it was found: `exact`, letter by letter; `normalized`, in another spelling or with numbers
            and dates written otherwise; `fuzzy`, misspelt, inflected or its words in another order; `passage`, the
            sentence or two that support it in other words.
        fact: The places, one of which is enough: the answer's own characters, or for `passage` the sentences.
        passage: The best place's sentence with those around it in its paragraph.
        sentence: The best place's sentence alone.
        confidence: Probability that one of the places states the answer, in [0, 1].
    """

    method: Method
    fact: Fact
    passage: str
    sentence: str
    confidence: float


def propose(index: SentenceIndex, candidates: Candidates) -> list[Proposal]:
    """The likeliest places, at most three, the best first; none where no place is worth showing."""
    shares = candidates.confidences()
    proposals: list[Proposal] = []
    for group in _groups(index, candidates, shares.tolist()):
        confidence = float(shares[group].sum())
        if len(proposals) == _PROPOSALS or confidence < WORTH_SHOWING:
            break
        proposals.append(_proposal(index, candidates, [int(candidates.sentences[at]) for at in group], confidence))
    return sorted(proposals, key=lambda proposal: -proposal.confidence)


def _groups(index: SentenceIndex, candidates: Candidates, shares: Sequence[float]) -> Iterator[list[int]]:
    """Positions of the candidates, the likeliest first, each with its copies elsewhere; a sure one with its equals."""
    telling = candidates.features[:, FEATURES.index("question_here")] >= _TELLING
    left = np.argsort(-np.array(shares), kind="stable").tolist()
    while left:
        best, *others = left
        text = index.compared(int(candidates.sentences[best]))
        copies = [at for at in others if index.compared(int(candidates.sentences[at])) == text]
        alike = [
            at
            for at in others
            if at not in copies
            and shares[at] >= ALIKE * shares[best]
            and all(telling[one] and int(candidates.sentences[one]) in candidates.occurrences for one in (at, best))
        ]
        group = [best, *copies[:_MOST_COPIES]]
        # Where many are as good, none of them is: the question does not tell them apart.
        if len(alike) < _MOST_ALIKE and sum(shares[at] for at in (*group, *alike)) >= SURE:
            group += alike
        yield group
        left = [at for at in left if at not in group]


def _proposal(index: SentenceIndex, candidates: Candidates, sentences: Sequence[int], confidence: float) -> Proposal:
    method, _ = _spans(index, candidates, sentences[0])
    places: list[Place] = []
    for sentence in sentences:
        document = index.documents[index.document[sentence]]
        _, spans = _spans(index, candidates, sentence)
        places += [Place(Span(document.id, start, end), document.text[start:end]) for start, end in spans]
    fact = tuple(dict.fromkeys(places))
    passage = index.text(*index.around(sentences[0]))
    return Proposal(method, fact, passage, index.text(sentences[0]), confidence)


def _spans(index: SentenceIndex, candidates: Candidates, sentence: int) -> tuple[Method, list[Range]]:
    """Offsets of what states the answer in a sentence, and how it was found."""
    if occurrences := candidates.occurrences.get(sentence):
        exact = any(occurrence.exact for occurrence in occurrences)
        ordered = sorted(occurrences, key=lambda one: (not one.exact, one.answer, one.span))
        return "exact" if exact else "normalized", list(dict.fromkeys(one.span for one in ordered))
    for answer in candidates.answers:
        if span := _likest(index, answer, sentence) or _reordered(index, answer, sentence):
            return "fuzzy", [span]
    return "passage", [_supporting(index, candidates, sentence)]


def _likest(index: SentenceIndex, answer: str, sentence: int) -> Range | None:
    """The words of a sentence that are nearly the answer, letter by letter."""
    from rapidfuzz import fuzz

    answered = values(answer)
    needle, hay = compared(answered), index.compared(sentence)
    if not _SHORTEST_FUZZY <= len(needle) <= len(hay):
        return None
    found = fuzz.partial_ratio_alignment(needle, hay, score_cutoff=_SAME)
    if found is None:
        return None
    touched: list[Token] = []
    at = 0
    for token in values(index.text(sentence)):
        inside = min(found.dest_end, at + len(token.form)) - max(found.dest_start, at)
        # A word of which only the edge was touched belongs to the alignment's slack.
        if 2 * inside > len(token.form):
            touched.append(token)
        at += len(token.form) + 1
    if not touched or not all(_is_among(token, touched) for token in answered if key_terms([token])):
        return None
    start = index.spans[sentence][0]
    return start + touched[0].start, start + touched[-1].end


def _is_among(wanted: Token, tokens: Sequence[Token]) -> bool:
    """Whether a word, or one much like it, is among others; a number has to be the same."""
    from rapidfuzz import fuzz

    if wanted.form[0].isdigit():
        return any(wanted.form in (token.form, *token.others) for token in tokens)
    return any(fuzz.ratio(wanted.form, token.form) >= _SAME_WORD for token in tokens)


def _reordered(index: SentenceIndex, answer: str, sentence: int) -> Range | None:
    """The shortest run of words with all of the answer's in any order, if little else stands between them."""
    answered = values(answer)
    wanted = {token.form for token in answered if key_terms([token])}
    tokens = values(index.text(sentence))
    if len(wanted) < 2 or not wanted <= {token.form for token in tokens}:
        return None
    longest = 2 * len(answered) + 1
    runs = [
        (last - first, first, last)
        for first in range(len(tokens))
        for last in range(first, min(first + longest, len(tokens)))
        if tokens[first].form in wanted and wanted <= {token.form for token in tokens[first : last + 1]}
    ]
    if not runs:
        return None
    _, first, last = min(runs)
    start = index.spans[sentence][0]
    return start + tokens[first].start, start + tokens[last].end


def _supporting(index: SentenceIndex, candidates: Candidates, sentence: int) -> Range:
    """The sentence, with one beside it where that adds much of the answer."""
    asked = set(key_terms(values(candidates.question)))
    answered = [set(key_terms(values(answer))) - asked for answer in candidates.answers]
    wanted = max(answered, key=len, default=set()) or asked
    weights = {term: index.rarity(term) for term in sorted(wanted)}
    had = set(key_terms(values(index.text(sentence))))
    first, last = index.around(sentence)
    gains = {
        beside: sum(weight for term, weight in weights.items() if term in terms_beside - had)
        for beside in {first, last} - {sentence}
        for terms_beside in [set(key_terms(values(index.text(beside))))]
    }
    best = max(gains, key=lambda beside: gains[beside], default=sentence)
    if gains.get(best, 0.0) < _ADDS * sum(weights.values()):
        best = sentence
    return index.spans[min(best, sentence)][0], index.spans[max(best, sentence)][1]
