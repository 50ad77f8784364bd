"""DSPy's InferRules: rules read off the examples, put behind the instructions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optimize.compiling.feedback import score_of
from optimize.compiling.optimizer import Made, Writing, whole
from optimize.compiling.task import GOOD_ENOUGH, CompileTask
from optimize.compiling.taught import Taught

if TYPE_CHECKING:
    import dspy


@dataclass(frozen=True)
class InferRules(Taught, Writing):
    """Bootstrapped demos, and `num_candidates` lists of `num_rules` rules, compared on held-out training examples."""

    num_candidates: int = whole(3, 1, 50)
    num_rules: int = whole(5, 1, 50)
    max_bootstrapped_demos: int = whole(2, 1, 50)
    teacher_demos: int = whole(2, 0, 50)
    attempts: int = whole(8, 1)
    held_out: int = whole(10, 1)

    name: ClassVar[str] = "infer_rules"

    def most_calls(self, predictors: int, train: int) -> int:
        """Bootstrapping; for each candidate rules for each predictor, and a run on each held-out example."""
        parts = self.parts(train)
        return (parts.learn + self.num_candidates * (1 + parts.held)) * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The best `keep` by their held-out scores."""
        from dspy.teleprompt import InferRules as Rules

        scored: list[tuple[float, dspy.Module]] = []

        class Kept(Rules):
            """DSPy's, with every candidate kept as it was scored."""

            def update_program_instructions(self, predictor: dspy.Predict, natural_language_rules: str) -> None:
                # DSPy writes into the signature's class, which all candidates share: the last one's rules would stand
                # in all of them.
                predictor.signature = predictor.signature.with_instructions(predictor.signature.instructions)
                super().update_program_instructions(predictor, natural_language_rules)

            def evaluate_program(self, program: dspy.Module, dataset: list[dspy.Example]) -> float:
                score = float(super().evaluate_program(program, dataset))
                scored.append((score, program))
                return score

        optimizer = Kept(
            num_candidates=self.num_candidates,
            num_rules=self.num_rules,
            num_threads=task.threads,
            metric=score_of(task),
            metric_threshold=GOOD_ENOUGH,
            max_bootstrapped_demos=self.max_bootstrapped_demos,
            max_labeled_demos=0,
        )
        # Given to the constructor, the LM would be the teacher's as well.
        optimizer.rules_induction_program.teacher_settings = {"lm": task.reflection}
        lesson = self.lesson(task)
        optimizer.compile(task.student(), teacher=lesson.teacher, trainset=task.shown(lesson.learn), valset=lesson.held)
        best = sorted(scored, key=lambda entry: -entry[0])
        for _, program in best[: self.keep]:
            yield Made(program, self.params(), lesson.parents)
