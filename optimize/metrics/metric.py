"""What a metric of an answer is. Three modules have the kinds: `metrics_overlap`, `metrics_semantic`, `judges`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from optimize.data.example import Example
from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy

    from programs.types import Passage

Need = Literal["answers", "context", "evidence", "judge"]
"""What a metric works from: known answers, the passages that the LM was shown, gold evidence, a judge LM."""
NEEDS: tuple[Need, ...] = get_args(Need)

SHOWN_ANSWERS, SHOWN_CHARACTERS = 5, 300


class Score(float):
    """A score in [0, 1], higher is better, that says in words what is wrong.

    It is the number itself, so that it compares, adds up and is written as one, also where DSPy's optimizers do that.

    Args:
        value: The number.
        feedback: What is wrong with the answer; may be empty where nothing is.
    """

    __slots__ = ("feedback",)
    feedback: str

    def __new__(cls, value: float, feedback: str = "") -> Score:
        """Put the number and the words together."""
        score = super().__new__(cls, value)
        score.feedback = feedback
        return score

    @property
    def value(self) -> float:
        """The number alone."""
        return float(self)


Grade = Callable[[Example, "dspy.Prediction"], Any]
"""Scores one prediction with a `Score` or a number; raises on what it cannot score."""


@dataclass(frozen=True)
class Metric:
    """Scores one prediction: `metric(example, prediction)`.

    What it raises is a failure of that example and no zero.

    Attributes:
        name: What it is called in a study file, in reports and in MLflow.
        needs: What it works from.
        grade: Does the work; what it returns is checked.
        judge_calls: Calls of the judge LM that one answer takes at most.
    """

    name: str
    needs: frozenset[Need]
    grade: Grade = field(repr=False)
    judge_calls: int = 0

    def __call__(self, example: Example, prediction: dspy.Prediction) -> Score:
        """Score a prediction; below 1 the feedback is never empty.

        Raises:
            RagwrightError: The prediction has no answer, or lacks what the metric works from, or the score is no number
                in [0, 1].
            EndpointError: The judge LM refuses every call.
            BudgetExhaustedError: The budget does not allow the judge's call.
        """
        score = self._checked(self.grade(example, prediction), example)
        if score < 1.0 and not score.feedback.strip():
            return Score(
                score, f"{self.name} is {score:.2f}: {compared(example.answers, str(prediction.get('answer')))}"
            )
        return score

    def _checked(self, graded: Any, example: Example) -> Score:
        """The score in what a grade returned: a number, a `Score`, or DSPy's prediction of `score` and `feedback`."""
        value = getattr(graded, "score", graded)
        try:
            number = float("nan") if isinstance(value, str) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not 0.0 <= number <= 1.0:
            raise RagwrightError(f"metric: {self.name!r} returned {value!r} for {example.id!r}; scores lie in [0, 1].")
        return Score(number, str(getattr(graded, "feedback", None) or ""))


def answer_of(prediction: dspy.Prediction) -> str:
    """The answer's text.

    Raises:
        RagwrightError: There is none.
    """
    answer = prediction.get("answer")
    if not isinstance(answer, str):
        raise RagwrightError(f"the prediction has no text in 'answer', got {answer!r}: the program must return one.")
    return answer


def passages_of(prediction: dspy.Prediction) -> tuple[Passage, ...]:
    """The passages that the LM was shown, best first; none where nothing was found.

    Raises:
        RagwrightError: The program does not tell.
    """
    passages = prediction.get("passages")
    if passages is None:
        raise RagwrightError(
            "the prediction has no 'passages', which the metric needs: the program must return what it showed the LM."
        )
    return tuple(passages)


def clamped(value: float) -> float:
    """A value that rounding has moved just out of [0, 1], back at its end."""
    assert -1e-6 < value < 1 + 1e-6, f"{value!r} is no rounding error"
    return min(1.0, max(0.0, value))


def compared(golds: tuple[str, ...] | None, answer: str) -> str:
    """What was expected and what came, in words."""
    got = f"got {_quoted(answer)}"
    if golds is None:
        return got
    if not golds:
        return f"expected the answer to decline, since the documents do not hold it; {got}"
    shown = ", ".join(map(_quoted, dict.fromkeys(golds[:SHOWN_ANSWERS])))
    return f"expected {'one of ' if len(set(golds)) > 1 else ''}{shown}; {got}"


def _quoted(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= SHOWN_CHARACTERS else f"{flat[:SHOWN_CHARACTERS]}…")
