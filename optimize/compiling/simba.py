"""DSPy's SIMBA: demos and rules from questions that come out differently from one sample to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from optimize.compiling.feedback import score_and_feedback_of
from optimize.compiling.optimizer import Made, Writing, whole
from optimize.compiling.task import CompileTask, part


@dataclass(frozen=True)
class Simba(Writing):
    """`max_steps` times a batch of `bsize` examples, each sampled `num_candidates` times at temperature 1.

    The rules are written by the reflection LM as a JSON object; one that cannot leaves the demos. At the end the best
    of each step are compared on all `examples`.
    """

    bsize: int = whole(4, 1)
    num_candidates: int = whole(3, 2, 50)
    max_steps: int = whole(2, 1, 100)
    max_demos: int = whole(3, 0, 50)
    examples: int = whole(12, 1)

    name: ClassVar[str] = "simba"

    def problem(self) -> str | None:
        """A batch must fit into the examples."""
        if self.bsize > self.examples:
            return f"bsize is {self.bsize} and must not exceed examples, which is {self.examples}"
        return None

    @property
    def least_train(self) -> int:
        """A batch."""
        return self.bsize

    def most_calls(self, predictors: int, train: int) -> int:
        """Samples and new programs of each step on its batch, a rule for each example of it, and the comparison."""
        programs = min(self.num_candidates + 1, self.bsize)
        step = (self.num_candidates + programs) * self.bsize * predictors + self.bsize
        compared = min(self.num_candidates, self.max_steps) + 1
        return self.max_steps * step + compared * part(train, learn=self.examples).learn * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The best `keep`."""
        from dspy.teleprompt import SIMBA

        optimizer = SIMBA(
            metric=score_and_feedback_of(task),
            bsize=self.bsize,
            num_candidates=self.num_candidates,
            max_steps=self.max_steps,
            max_demos=self.max_demos,
            prompt_model=task.reflection,
            num_threads=task.threads,
        )
        trainset = task.trainset()
        learn, _ = part(len(trainset), learn=self.examples).cut(trainset)
        best = optimizer.compile(task.student(), trainset=learn, seed=task.seed)
        for entry in best.candidate_programs[: self.keep]:
            yield Made(entry["program"], self.params(), task.parents)
