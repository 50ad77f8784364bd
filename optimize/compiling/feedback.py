"""The study's metric with the arguments that DSPy's optimizers give, and what it says in words.

The words tell a failure of retrieval from one of generation: without that, an optimizer asks for better answers where
the passages hold none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from optimize.data.example import Example
from optimize.measures.table import gold_in_context
from optimize.metrics.metric import Score

if TYPE_CHECKING:
    import dspy

    from optimize.compiling.task import CompileTask

QUOTE = 200
"""Characters shown of a passage that was missed."""


def score_of(task: CompileTask) -> Callable[..., float]:
    """The metric as `(example, prediction, trace=None) -> score`; a program that failed scores 0."""

    def score(example: dspy.Example, prediction: dspy.Prediction | None, trace: object = None) -> float:
        if prediction is None:
            return 0.0
        return task.metric(task.by_question[example.question], prediction).value

    return score


def score_and_feedback_of(task: CompileTask) -> Callable[..., dspy.Prediction]:
    """The metric as `(example, prediction, ...) -> Prediction(score, feedback)`; takes GEPA's five arguments."""
    import dspy

    def score(
        example: dspy.Example,
        prediction: dspy.Prediction | None,
        trace: object = None,
        pred_name: str | None = None,
        pred_trace: object = None,
    ) -> dspy.Prediction:
        gold = task.by_question[example.question]
        if prediction is None:
            return dspy.Prediction(score=0.0, feedback=f"The program failed. {_wanted(gold)}")
        found = task.metric(gold, prediction)
        return dspy.Prediction(score=found.value, feedback=feedback(gold, prediction, found))

    return score


def feedback(example: Example, prediction: dspy.Prediction, score: Score) -> str:
    """What was right and wrong with a prediction, and which part of the program to blame.

    Args:
        example: The question with its answers and, where known, its evidence.
        prediction: With an `answer` and, to tell retrieval from generation, `passages`.
        score: What the metric says about it.
    """
    said = score.feedback.strip()
    parts = [said or f"Score {score.value:.2f} of 1.", _blame(example, prediction, score.value)]
    if not all(answer in said for answer in example.known_answers[:1]):
        parts.insert(1, _wanted(example))
    return " ".join(part for part in parts if part)


def _wanted(example: Example) -> str:
    if not example.known_answers:
        return "The documents do not answer this question, so declining to answer is right."
    return f"Right answers: {' | '.join(example.known_answers)}."


def _blame(example: Example, prediction: dspy.Prediction, value: float) -> str:
    passages = prediction.get("passages")
    if not example.evidence or passages is None:
        return ""
    if gold_in_context(example, [passage.span for passage in passages]):
        return "" if value >= 1.0 else "Retrieval found the evidence, so it is the generation that failed."
    quotes = "; ".join(repr(fact[0].quote[:QUOTE]) for fact in example.evidence)
    return f"Retrieval failed: the passages lack evidence that the answer needs: {quotes}."
