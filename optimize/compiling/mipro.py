"""DSPy's MIPROv2: instructions and demos by Bayesian optimization."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from optimize.compiling.feedback import score_of
from optimize.compiling.optimizer import Made, Writing, whole
from optimize.compiling.task import GOOD_ENOUGH, CompileTask
from optimize.compiling.taught import Taught

SUMMARY_BATCH = 10
"""Examples that the reflection LM is shown at a time to describe the data."""


@dataclass(frozen=True)
class Mipro(Taught, Writing):
    """`num_candidates` instructions and as many sets of bootstrapped demos, the first of both being those at the start.

    Which go together is searched for in `num_trials` trials, each on all held-out training examples.
    """

    num_candidates: int = whole(3, 2, 50)
    num_trials: int = whole(4, 1, 500)
    max_bootstrapped_demos: int = whole(2, 1, 50)
    teacher_demos: int = whole(2, 0, 50)
    attempts: int = whole(6, 1)
    held_out: int = whole(10, 1)

    name: ClassVar[str] = "mipro"

    def most_calls(self, predictors: int, train: int) -> int:
        """Bootstrapping, the default program and every trial; a summary of the data, and three calls a proposal."""
        parts = self.parts(train)
        runs = (self.num_candidates - 1) * parts.learn + (1 + self.num_trials) * parts.held
        summary = min(10, math.ceil(parts.learn / SUMMARY_BATCH)) + 1
        return runs * predictors + summary + 3 * self.num_candidates * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The best `keep`."""
        import dspy
        from dspy.teleprompt import MIPROv2

        lesson = self.lesson(task)
        optimizer = MIPROv2(
            metric=score_of(task),
            metric_threshold=GOOD_ENOUGH,
            prompt_model=task.reflection,
            task_model=dspy.settings.lm,
            auto=None,
            num_candidates=self.num_candidates,
            max_bootstrapped_demos=self.max_bootstrapped_demos,
            max_labeled_demos=0,
            num_threads=task.threads,
            seed=task.seed,
        )
        best = optimizer.compile(
            task.student(),
            teacher=lesson.teacher,
            trainset=lesson.learn,
            valset=lesson.held,
            num_trials=self.num_trials,
            minibatch=False,
            view_data_batch_size=SUMMARY_BATCH,
        )
        for entry in best.candidate_programs[: self.keep]:
            yield Made(entry["program"], self.params(), lesson.parents)
