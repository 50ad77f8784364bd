"""Metrics that compare an answer's text with the gold answers: words, word sequences, characters.

The closest gold answer counts. An answer that is a gold answer, letter by letter, scores 1 everywhere.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from optimize.data.example import Example
from optimize.metrics.abstention import normalize, ruled
from optimize.metrics.metric import Grade, Metric, Score, answer_of, clamped, compared

if TYPE_CHECKING:
    import dspy

Compare = Callable[[str, Sequence[str]], float]
"""Answer and gold answers -> closeness in [0, 1], 1 where the answer is one of them."""


def against_golds(compare: Compare, hint: Callable[[str, Sequence[str]], str] = lambda answer, golds: "") -> Grade:
    """A grade by comparison: by the rule on declining first, then by `compare`.

    Args:
        compare: Called where there are gold answers and the answer is none of them to the letter.
        hint: What to say beside what was expected; empty for nothing.
    """

    def grade(example: Example, prediction: dspy.Prediction) -> Score:
        answer, golds = answer_of(prediction), example.known_answers
        rule = ruled(example, answer, declined=0.0, invented=0.0)
        if rule is not None:
            return rule
        value = 1.0 if answer.strip() in {gold.strip() for gold in golds} else clamped(compare(answer, golds))
        more = hint(answer, golds) if value < 1 else ""
        return Score(value, "" if value == 1 else "; ".join(filter(None, (compared(golds, answer), more))))

    return grade


def _exact(answer: str, golds: Sequence[str]) -> float:
    return float(normalize(answer) in map(normalize, golds))


def _token_f1(answer: str, golds: Sequence[str]) -> float:
    return max(_f1(normalize(answer), normalize(gold)) for gold in golds)


def _f1(answer: str, gold: str) -> float:
    from dspy.evaluate.metrics import f1_score

    if answer == gold:
        return 1.0
    if not answer or not gold:
        return 0.0
    return float(f1_score(answer, gold))


def closest(answer: str, golds: Sequence[str]) -> str:
    """The gold answer with the highest token F1, the first of equals."""
    return max(golds, key=lambda gold: _f1(normalize(answer), normalize(gold)))


def _words_apart(answer: str, golds: Sequence[str]) -> str:
    """The words that the closest gold answer has and the answer lacks, and the other way round."""
    said, right = (Counter(normalize(text).split()) for text in (answer, closest(answer, golds)))
    if not said & right:
        return ""
    parts = [("it lacks", right - said), ("it adds", said - right)]
    return ", ".join(f"{what} {' '.join(words.elements())!r}" for what, words in parts if words)


exact_match = Metric("exact_match", frozenset({"answers"}), against_golds(_exact))
"""1 if the normalized answer equals a normalized gold answer, else 0 (Rajpurkar et al. 2016)."""

token_f1 = Metric("token_f1", frozenset({"answers"}), against_golds(_token_f1, _words_apart))
"""Harmonic mean of token precision and recall (Rajpurkar et al. 2016).

Tokens are the words of the normalized text. Text without spaces (CJK) is one token: identical answers score 1 there,
partial ones 0.
"""


def rouge_words(text: str) -> list[str]:
    """The words that ROUGE compares: runs of letters, digits and their marks, without case.

    As in `rouge-score` for English text. That library leaves out all that is not ASCII, so that Greek scores 0.
    """
    text = unicodedata.normalize("NFC", text.lower())
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text).split()


def _rouge_n(n: int) -> Compare:
    def f_measure(answer: str, gold: str) -> float:
        said, right = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in _both(answer, gold))
        return _share((said & right).total(), said.total(), right.total())

    return lambda answer, golds: max(f_measure(answer, gold) for gold in golds)


def _rouge_l(answer: str, golds: Sequence[str]) -> float:
    from rapidfuzz.distance import LCSseq

    def f_measure(gold: str) -> float:
        said, right = _both(answer, gold)
        return _share(LCSseq.similarity(said, right), len(said), len(right))

    return max(map(f_measure, golds))


def _both(answer: str, gold: str) -> tuple[list[str], list[str]]:
    return rouge_words(answer), rouge_words(gold)


def _share(common: int, said: int, right: int) -> float:
    """F-measure of an overlap; 0 where there is nothing to overlap."""
    return 2 * common / (said + right) if common else 0.0


rouge1 = Metric("rouge1", frozenset({"answers"}), against_golds(_rouge_n(1)))
"""ROUGE-1: F-measure of the words in common, in any order, without stemming (Lin 2004)."""

rouge2 = Metric("rouge2", frozenset({"answers"}), against_golds(_rouge_n(2)))
"""ROUGE-2: F-measure of the pairs of neighbouring words in common (Lin 2004).

An answer of one word has none and scores 0, unless it is a gold answer to the letter.
"""

rouge_l = Metric("rougeL", frozenset({"answers"}), against_golds(_rouge_l))
"""ROUGE-L: F-measure of the longest common subsequence of words (Lin 2004)."""


@lru_cache(maxsize=1)
def _sacrebleu() -> tuple[Any, Any]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU(effective_order=True), CHRF()


def _bleu(answer: str, golds: Sequence[str]) -> float:
    return float(_sacrebleu()[0].sentence_score(answer, list(golds)).score) / 100


def _chrf(answer: str, golds: Sequence[str]) -> float:
    return float(_sacrebleu()[1].sentence_score(answer, list(golds)).score) / 100


bleu = Metric("bleu", frozenset({"answers"}), against_golds(_bleu))
"""SacreBLEU's sentence BLEU over 100: 13a tokens, exponential smoothing, effective order (Post 2018).

All gold answers are its references together. Made for sentences: on answers of a few words it is coarse.
"""

chrf = Metric("chrf", frozenset({"answers"}), against_golds(_chrf))
"""SacreBLEU's chrF2 over 100: F-score of character n-grams up to 6, recall counted twice (Popović 2015).

It needs no words, so it works for text without spaces (CJK) and for rich inflection.
"""
