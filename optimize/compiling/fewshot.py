"""Optimizers that choose demos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from optimize.compiling.feedback import score_of
from optimize.compiling.optimizer import Comparing, Made, Optimizer, whole
from optimize.compiling.task import GOOD_ENOUGH, CompileTask, Parts, part
from optimize.compiling.taught import Taught


@dataclass(frozen=True)
class LabeledFewShot(Optimizer):
    """DSPy's LabeledFewShot: gold answers as demos, no LM call. One candidate for each `k`."""

    k: int | tuple[int, ...] | list[int] = (1, 3)

    name: ClassVar[str] = "labeled_fewshot"
    scores: ClassVar[bool] = False

    @property
    def counts(self) -> tuple[int, ...]:
        """Demos of each candidate."""
        return (self.k,) if isinstance(self.k, int) else tuple(self.k)

    def problem(self) -> str | None:
        """What is wrong with `k`."""
        good = isinstance(self.k, int | list | tuple) and all(type(k) is int and k >= 1 for k in self.counts)
        return None if good and self.counts else f"k is {self.k!r} and has to be a number of demos, or several"

    @property
    def least_train(self) -> int:
        """Those of the smallest candidate; a larger one shows what there is."""
        return min(self.counts)

    @property
    def most_candidates(self) -> int:
        """One for each `k`."""
        return len(self.counts)

    def most_calls(self, predictors: int, train: int) -> int:
        """None."""
        return 0

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The first `k` examples."""
        from dspy.teleprompt import LabeledFewShot as Labeled

        for count in self.counts:
            program = Labeled(k=count).compile(task.student(), trainset=task.trainset(), sample=False)
            yield Made(program, {"k": count}, task.parents)


@dataclass(frozen=True)
class BootstrapFewShot(Optimizer):
    """DSPy's BootstrapFewShot: the teacher's own good answers as demos. At most `attempts` examples are tried."""

    max_bootstrapped_demos: int = whole(3, 1, 50)
    teacher_demos: int = whole(2, 0, 50)
    attempts: int = whole(12, 1)

    name: ClassVar[str] = "bootstrap_fewshot"
    most_candidates = 1

    @property
    def least_train(self) -> int:
        """The teacher's demos and one to learn from."""
        return self.teacher_demos + 1

    def _parts(self, train: int) -> Parts:
        return part(train, teacher=self.teacher_demos, learn=self.attempts)

    def most_calls(self, predictors: int, train: int) -> int:
        """One run for each attempt."""
        return self._parts(train).learn * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """One candidate."""
        from dspy.teleprompt import BootstrapFewShot as Bootstrap

        trainset = task.trainset()
        teacher, parent = task.teacher(self.teacher_demos)
        optimizer = Bootstrap(
            metric=score_of(task),
            metric_threshold=GOOD_ENOUGH,
            max_bootstrapped_demos=self.max_bootstrapped_demos,
            max_labeled_demos=0,
        )
        learn, _ = self._parts(len(trainset)).cut(trainset)
        program = optimizer.compile(task.student(), teacher=teacher, trainset=learn)
        yield Made(program, self.params(), (*task.parents, parent))


@dataclass(frozen=True)
class RandomSearch(Taught, Comparing):
    """DSPy's BootstrapFewShotWithRandomSearch: several sets of demos, compared on held-out training examples.

    It compares the program without demos, with labeled ones, and with `num_candidates` + 1 bootstrapped sets.
    """

    num_candidates: int = whole(2, 0, 100)
    max_bootstrapped_demos: int = whole(3, 1, 50)
    max_labeled_demos: int = whole(2, 0, 50)
    teacher_demos: int = whole(2, 0, 50)
    attempts: int = whole(8, 1)
    held_out: int = whole(10, 1)

    name: ClassVar[str] = "random_search"

    def most_calls(self, predictors: int, train: int) -> int:
        """Bootstrapping of each set, and a run of each program on each held-out example."""
        parts = self.parts(train)
        bootstrapped = (self.num_candidates + 1) * parts.learn
        return (bootstrapped + (self.num_candidates + 3) * parts.held) * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The best `keep`."""
        from dspy.teleprompt import BootstrapFewShotWithRandomSearch

        lesson = self.lesson(task)
        optimizer = BootstrapFewShotWithRandomSearch(
            metric=score_of(task),
            metric_threshold=GOOD_ENOUGH,
            max_bootstrapped_demos=self.max_bootstrapped_demos,
            max_labeled_demos=self.max_labeled_demos,
            num_candidate_programs=self.num_candidates,
            num_threads=task.threads,
        )
        # Labeled demos are put into prompts as they are, so these examples hold what the predictor would read.
        best = optimizer.compile(
            task.student(), teacher=lesson.teacher, trainset=task.shown(lesson.learn), valset=lesson.held
        )
        for entry in best.candidate_programs[: self.keep]:
            yield Made(entry["program"], self.params(), lesson.parents)
