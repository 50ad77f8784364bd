"""Metrics of an answer: (example, prediction) -> score in [0, 1], higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from optimize.example import Example
from programs.catalogue import load_object
from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy

Metric = Callable[[Example, "dspy.Prediction"], float]
"""Scores one prediction; raises on what it cannot score, which is then a failure and no zero."""

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
    return normalize(answer.replace("\u2019", "'")) in ABSTENTIONS


def exact_match(example: Example, prediction: dspy.Prediction) -> float:
    """1 if the normalized answer equals one of the normalized gold answers; abstaining is right where none exist."""
    answer = _answer(prediction)
    if not example.known_answers:
        return float(abstains(answer))
    return float(any(normalize(answer) == normalize(gold) for gold in example.known_answers))


def token_f1(example: Example, prediction: dspy.Prediction) -> float:
    """Harmonic mean of token precision and recall against the closest gold answer (Rajpurkar et al. 2016).

    Tokens are the words of the normalized text. Text without spaces (CJK) is one token: identical answers score 1
    there, partial ones 0.
    """
    answer = _answer(prediction)
    if not example.known_answers:
        return float(abstains(answer))
    return max(_f1(normalize(answer), normalize(gold)) for gold in example.known_answers)


def _f1(answer: str, gold: str) -> float:
    from dspy.evaluate.metrics import f1_score

    if answer == gold:
        return 1.0
    if not answer or not gold:
        return 0.0
    return float(f1_score(answer, gold))


def _answer(prediction: dspy.Prediction) -> str:
    answer = prediction.get("answer")
    if not isinstance(answer, str):
        raise RagwrightError(f"the prediction has no text in 'answer', got {answer!r}: the program must return one.")
    return answer


METRICS: dict[str, Metric] = {"exact_match": exact_match, "token_f1": token_f1}


def load_metric(name: str) -> Metric:
    """A metric by name, or a person's own by `module:score` with the same two arguments.

    Raises:
        RagwrightError: The name is unknown or cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    score = load_object(name, f"metric: {name!r} is neither one of {', '.join(METRICS)} nor module:score")
    if not callable(score):
        raise RagwrightError(f"metric: {name!r} is not callable; it must be score(example, prediction) -> float.")

    def checked(example: Example, prediction: dspy.Prediction) -> float:
        value = float(score(example, prediction))
        if not 0.0 <= value <= 1.0:
            raise RagwrightError(f"metric: {name!r} returned {value!r} for {example.id!r}; scores lie in [0, 1].")
        return value

    return checked
