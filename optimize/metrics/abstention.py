"""Answers that decline to answer, and the one rule of what they are worth."""

from __future__ import annotations

from optimize.data.example import Example
from optimize.metrics.metric import Score, compared

ABSTENTIONS = frozenset(
    {
        "",
        "unanswerable",
        "unknown",
        "not in context",
        "not stated",
        "not specified",
        "no answer",
        "none",
        "i dont know",
        "i do not know",
        "question is unanswerable",
        "context does not say",
    }
)
"""Normalized answers that decline to answer."""


def normalize(text: str) -> str:
    """SQuAD's normalization: no case, ASCII punctuation, English articles or extra space (Rajpurkar et al. 2016)."""
    from dspy.evaluate.metrics import normalize_text

    return str(normalize_text(text))


def abstains(answer: str) -> bool:
    """Whether an answer declines to answer."""
    return _plain(answer) in ABSTENTIONS


def ruled(example: Example, answer: str, *, declined: float | None, invented: float | None) -> Score | None:
    """The score that follows from declining or not: declining is right where the documents do not hold the answer.

    An answer that stands in a gold answer, such as "none" in "none of them", does not decline.

    Args:
        example: The question; with answers of None it is not known whether declining is right.
        answer: What was answered.
        declined: What declining is worth where it is not known to be right; None: it is graded as any answer is.
        invented: What an answer is worth where there is none; None: it is graded.

    Returns:
        The score, or None where the answer has to be graded.
    """
    golds = example.answers
    if not abstains(answer):
        worth = invented if golds == () else None
        return None if worth is None else Score(worth, compared(golds, answer))
    if golds == ():
        return Score(1.0)
    if declined is None or any(_says(answer, gold) for gold in golds or ()):
        return None
    return Score(declined, f"the answer declines; {compared(golds, answer)}")


def _says(answer: str, gold: str) -> bool:
    said, right = _plain(answer), _plain(gold)
    return said == right or (said != "" and f" {said} " in f" {right} ")


def _plain(text: str) -> str:
    return normalize(text.replace("\u2019", "'"))
