"""DSPy's COPRO: instructions by coordinate ascent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from optimize.compiling.feedback import score_of
from optimize.compiling.optimizer import Made, Writing, whole
from optimize.compiling.task import CompileTask, part


@dataclass(frozen=True)
class Copro(Writing):
    """The reflection LM writes `breadth` instructions `depth` times, each time having seen how the last ones scored.

    COPRO also writes a prefix of the output field. DSPy's prompt formats do not show it, and it is not kept.
    """

    breadth: int = whole(3, 2, 50)
    depth: int = whole(2, 1, 20)
    examples: int = whole(12, 1)

    name: ClassVar[str] = "copro"
    least_train = 2
    # What DSPy's 1.4 does to most models is noise.
    temperature: ClassVar[float] = 1.0

    def most_calls(self, predictors: int, train: int) -> int:
        """Every proposal on every example; with several predictors all proposals so far at each depth."""
        rounds = range(1, self.depth + 1)
        tried = sum(self.breadth * (1 if predictors == 1 else depth) for depth in rounds) * predictors
        examples = part(train, learn=self.examples).learn
        return tried * examples * predictors + (self.breadth * self.depth - 1) * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The best `keep`."""
        from dspy.teleprompt import COPRO

        optimizer = COPRO(
            prompt_model=task.reflection,
            metric=score_of(task),
            breadth=self.breadth,
            depth=self.depth,
            init_temperature=self.temperature,
        )
        trainset = task.trainset()
        learn, _ = part(len(trainset), learn=self.examples).cut(trainset)
        best = optimizer.compile(task.student(), trainset=learn, eval_kwargs={"num_threads": task.threads})
        for entry in best.candidate_programs[: self.keep]:
            yield Made(entry["program"], self.params(), task.parents)
