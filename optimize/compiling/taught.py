"""What optimizers share that learn from a teacher's answers and compare what they make on held-out examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from optimize.compiling.task import CompileTask, Parts, part

if TYPE_CHECKING:
    import dspy


class Lesson(NamedTuple):
    """What a teacher teaches with.

    Attributes:
        learn: Examples that it is asked.
        held: Examples on which what is made is compared.
        teacher: The program with a few gold answers as demos.
        parents: Ids of the candidates that everything is made from.
    """

    learn: list[dspy.Example]
    held: list[dspy.Example]
    teacher: dspy.Module
    parents: tuple[str, ...]


class Taught:
    """For an `Optimizer` with these parameters.

    Attributes:
        teacher_demos: Demos of the teacher.
        attempts: Examples that it is asked at most.
        held_out: Examples that are held out at most.
    """

    teacher_demos: int
    attempts: int
    held_out: int

    @property
    def least_train(self) -> int:
        """The teacher's demos, one to learn from and one held out."""
        return self.teacher_demos + 2

    def parts(self, train: int) -> Parts:
        """How many of the training examples are for what."""
        return part(train, teacher=self.teacher_demos, learn=self.attempts, held=self.held_out)

    def lesson(self, task: CompileTask) -> Lesson:
        """Cut the training examples and make the teacher."""
        trainset = task.trainset()
        learn, held = self.parts(len(trainset)).cut(trainset)
        teacher, parent = task.teacher(self.teacher_demos)
        return Lesson(learn, held, teacher, (*task.parents, parent))
