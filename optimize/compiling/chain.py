"""Optimizers one after the other, each from the best of what there is.

The idea is that of DSPy's BetterTogether: demos first make the instructions that are written afterwards cheaper to
judge, and the other way round. Which candidate is the best is decided on training examples that no step sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from optimize.compiling.candidate import Candidate, apply_candidate, read_candidate
from optimize.compiling.feedback import score_of
from optimize.compiling.optimizer import Made, Optimizer, whole
from optimize.compiling.steps import STEPS, find
from optimize.compiling.task import CompileTask, part

if TYPE_CHECKING:
    import dspy

Step = str | Mapping[str, Mapping[str, Any]]
"""An optimizer's name, or a mapping from it to its parameters."""


@dataclass(frozen=True)
class Chain(Optimizer):
    """Runs `steps` in order; `held_out` training examples are kept back to choose what the next one starts from."""

    steps: tuple[Step, ...] | list[Step] = ()
    held_out: int = whole(8, 1)

    name: ClassVar[str] = "chain"

    @property
    def reflects(self) -> bool:
        """Whether any step does."""
        return any(step.reflects for step in self.opened)

    def problem(self) -> str | None:
        """What is wrong with the steps."""
        if not isinstance(self.steps, list | tuple) or len(self.steps) < 2:
            return f"steps is {self.steps!r} and has to be a list of two optimizers or more"
        for step in self.steps:
            if not isinstance(step, str) and not (isinstance(step, Mapping) and len(step) == 1):
                return f"a step is an optimizer's name or one name with its parameters, got {step!r}"
        assert self.opened, "opening checks each step's parameters"
        return None

    @property
    def opened(self) -> list[Optimizer]:
        """The steps as optimizers."""
        named = [(step, {}) if isinstance(step, str) else next(iter(step.items())) for step in self.steps]
        return [find(STEPS, name).of(name, params or {}) for name, params in named]

    @property
    def least_train(self) -> int:
        """What the most demanding step needs, and one held out."""
        return max(step.least_train for step in self.opened) + 1

    @property
    def most_candidates(self) -> int:
        """All that the steps make."""
        return sum(step.most_candidates for step in self.opened)

    def _learn(self, train: int) -> int:
        """Examples for the steps: what they need comes before what is held out."""
        least = self.least_train - 1
        return max(min(train, least), part(train, learn=train, held=self.held_out).learn)

    def most_calls(self, predictors: int, train: int) -> int:
        """Those of the steps, and a run of the start and of every candidate on each held-out example."""
        # Fewer held out leave more to the steps, so both are taken at their most.
        steps = sum(step.most_calls(predictors, train) for step in self.opened)
        return steps + (1 + self.most_candidates) * self.held_out * predictors

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The candidates of all steps, in the order of the steps."""
        learn = self._learn(len(task.usable))
        held = task.trainset()[learn : learn + self.held_out]
        part_task = replace(task, train=task.usable[:learn])
        best, best_score = task.start, _mean(task, task.start, held)
        scored = {read_candidate(part_task.student(), task.by_question).content}
        for number, step in enumerate(self.opened, 1):
            params = {"steps": list(self.steps[:number]), "held_out": self.held_out}
            start = best
            for made in step.compile(replace(part_task, start=start)):
                candidate = read_candidate(made.program, task.by_question, self.name, params, made.parents)
                yield Made(made.program, params, (start.id,) if start is not None else ())
                if candidate.content in scored:
                    continue
                scored.add(candidate.content)
                score = _mean(task, candidate, held)
                if score > best_score:
                    best, best_score = candidate, score


def _mean(task: CompileTask, candidate: Candidate | None, examples: list[dspy.Example]) -> float:
    """Mean score of a candidate; a question that failed counts as 0, and failures are counted elsewhere."""
    import dspy

    program = task.build()
    if candidate is not None:
        apply_candidate(program, candidate, task.by_id)
    found = dspy.Evaluate(devset=examples, metric=score_of(task), num_threads=task.threads)(program)
    return float(sum(score for *_, score in found.results)) / len(examples)
