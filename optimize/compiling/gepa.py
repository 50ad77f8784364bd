"""DSPy's GEPA: instructions by reflection on what went wrong (Agrawal et al., arXiv:2507.19457).

GEPA can resume from its own log folder. That file is a pickle, and holds nothing that is not known without it: its
random numbers are seeded, and with the response cache a second run asks for the same answers, gets them without a
call, and comes to the same state. So no log folder is given, and no pickle is written or read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from optimize.compiling.feedback import score_and_feedback_of
from optimize.compiling.optimizer import Made, Writing, whole
from optimize.compiling.task import CompileTask, Parts, part


@dataclass(frozen=True)
class Gepa(Writing):
    """The reflection LM reads what the program did on `minibatch` examples, and why, and rewrites its instructions.

    What does better on those examples is scored on all held-out ones.
    `max_metric_calls` counts runs of the program. GEPA looks at it between rounds only, so one round may come on top.
    """

    max_metric_calls: int = whole(50, 1, 1_000_000)
    minibatch: int = whole(3, 1, 100)
    examples: int = whole(12, 1)
    held_out: int = whole(8, 1)

    name: ClassVar[str] = "gepa"

    def problem(self) -> str | None:
        """The first round must fit."""
        least = self.held_out + 2 * self.minibatch
        if self.max_metric_calls < least:
            return f"max_metric_calls is {self.max_metric_calls}, and one round takes {least} (held_out + 2 minibatch)"
        if self.minibatch > self.examples:
            return f"minibatch is {self.minibatch} and must not exceed examples, which is {self.examples}"
        return None

    @property
    def least_train(self) -> int:
        """A minibatch, and as many held out, since at most half is."""
        return 2 * self.minibatch

    def _parts(self, train: int) -> Parts:
        return part(train, learn=self.examples, held=self.held_out)

    def most_calls(self, predictors: int, train: int) -> int:
        """A last round on top of `max_metric_calls`, and in each round two attempts at reflection."""
        parts = self._parts(train)
        runs = self.max_metric_calls - 1 + 2 * self.minibatch + parts.held
        return runs * predictors + 2 * math.ceil(self.max_metric_calls / self.minibatch)

    def compile(self, task: CompileTask) -> Iterator[Made]:
        """The best `keep` by their held-out scores, without the program that it started from."""
        import dspy
        from dspy.teleprompt import GEPA
        from dspy.teleprompt.gepa import InstructionProposer

        optimizer = GEPA(
            metric=score_and_feedback_of(task),
            max_metric_calls=self.max_metric_calls,
            reflection_minibatch_size=self.minibatch,
            reflection_lm=task.reflection,
            instruction_proposer=InstructionProposer(adapter=dspy.settings.adapter.reflection),
            # Without this an answer that cannot be read is left out of what is reflected on.
            add_format_failure_as_feedback=True,
            use_merge=False,
            num_threads=task.threads,
            track_stats=True,
            warn_on_score_mismatch=False,
            seed=task.seed,
        )
        trainset = task.trainset()
        learn, held = self._parts(len(trainset)).cut(trainset)
        found = optimizer.compile(task.student(), trainset=learn, valset=held).detailed_results
        scores = found.val_aggregate_scores
        best = sorted(range(1, len(scores)), key=lambda place: (-scores[place], place))
        for place in best[: self.keep]:
            yield Made(found.candidates[place], self.params(), task.parents)
