"""What a metric is that a judge LM grades. `judges_mlflow` and `judges_dspy` have the kinds, `judges` their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimize.data.example import Example
from optimize.metrics.metric import Grade, Metric, Need, answer_of, passages_of
from optimize.metrics.overlap import closest

if TYPE_CHECKING:
    import dspy


@dataclass(frozen=True)
class JudgedMetric:
    """A metric that still needs its judge.

    Attributes:
        name: What it is called.
        needs: What it works from.
        grade_by: Makes the grade for a judge.
        judge_calls: Calls of the judge that one answer takes at most.
        library: The package whose prompt it is: another version may grade differently.
    """

    name: str
    needs: frozenset[Need]
    grade_by: Callable[[dspy.LM], Grade] = field(repr=False)
    judge_calls: int
    library: str

    def by(self, judge: dspy.LM) -> Metric:
        """The metric, graded by `judge`."""
        return Metric(self.name, self.needs, self.grade_by(judge), self.judge_calls)


@dataclass(frozen=True)
class Asked:
    """What a judge may be told of an answer."""

    example: Example
    prediction: dspy.Prediction

    @property
    def question(self) -> str:
        """What was asked."""
        return self.example.question

    @property
    def answer(self) -> str:
        """What was answered."""
        return answer_of(self.prediction)

    @property
    def gold(self) -> str:
        """The gold answer that shares most words with the answer, the first of equals."""
        return closest(self.answer, self.example.known_answers)

    @property
    def context(self) -> str:
        """The passages that the LM was shown, the best first, empty lines between."""
        return "\n\n".join(passage.text for passage in passages_of(self.prediction))
