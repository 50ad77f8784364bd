"""What every optimizer is given, and the parts that it cuts the training examples into."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.compiling.candidate import Candidate, apply_candidate, read_candidate
from optimize.data.example import Example
from optimize.measures.table import gold_in_context
from optimize.metrics.metric import Metric

if TYPE_CHECKING:
    import dspy

    from programs.rag import SearchCall

GOOD_ENOUGH = 0.6
"""Score from which an answer of the teacher may serve as a demo."""

ABSTENTION = "unanswerable"
"""What a labeled demo answers where the corpus cannot."""


@dataclass(frozen=True)
class CompileTask:
    """What every optimizer is given. Nothing but `train` is read.

    Attributes:
        build: Makes a fresh bare program over the pipeline that compiling runs in.
        train: Training examples.
        metric: What a good answer is.
        seed: Of everything random.
        reflection: The LM that writes instructions; None: the task LM, which is that of the caller's DSPy context.
        folder: Where what DSPy prints and logs is kept, a file for each optimizer; None: nowhere.
        threads: Examples in flight at the same time.
        start: The candidate to start from; None: the bare program.
    """

    build: Callable[[], dspy.Module]
    train: tuple[Example, ...]
    metric: Metric
    seed: int
    reflection: dspy.LM | None = None
    folder: Path | None = None
    threads: int = 1
    start: Candidate | None = None

    @cached_property
    def by_id(self) -> dict[str, Example]:
        """Training examples by id."""
        return {example.id: example for example in self.train}

    @cached_property
    def by_question(self) -> dict[str, Example]:
        """Training examples by question."""
        return {example.question: example for example in self.train}

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of what a candidate made here descends from."""
        return (self.start.id,) if self.start is not None else ()

    def student(self) -> dspy.Module:
        """A fresh program to compile, with the prompts to start from.

        Its signatures are its own: DSPy's InferRules writes into the class, which all programs share.
        """
        program = self.build()
        for predictor in program.predictors():
            predictor.signature = predictor.signature.with_instructions(predictor.signature.instructions)
        if self.start is not None:
            apply_candidate(program, self.start, self.by_id)
        return program

    @cached_property
    def usable(self) -> tuple[Example, ...]:
        """The examples whose answers are known, shuffled by the seed: the others show and score nothing."""
        known = [example for example in self.train if example.answers is not None]
        random.Random(self.seed).shuffle(known)
        return tuple(known)

    def trainset(self) -> list[dspy.Example]:
        """The usable examples as DSPy's; unanswerable ones show how to abstain."""
        return [_dspy_example(example, {}) for example in self.usable]

    def shown(self, examples: Sequence[dspy.Example]) -> list[dspy.Example]:
        """The examples with what the answering predictor would read, so that labeled demos are whole."""
        program = self.build()
        answering = [name for name, p in program.named_predictors() if "answer" in p.signature.output_fields]
        if not answering or not hasattr(program, "demo_inputs"):
            return list(examples)
        return [
            _dspy_example(
                self.by_question[e.question],
                program.demo_inputs(answering[-1], e.question, {"answer": e.answer}),
            )
            for e in examples
        ]

    def teacher(self, demos: int) -> tuple[dspy.Module, str]:
        """The program with the first `demos` usable examples as demos, since a bare small model has little to teach.

        Returns:
            The teacher, and the id of the candidate that it is.
        """
        from dspy.teleprompt import LabeledFewShot

        shown = self.shown(self.trainset()[:demos])
        program = LabeledFewShot(k=demos).compile(self.student(), trainset=shown, sample=False)
        program._compiled = True
        return program, read_candidate(program, self.by_question, "labeled_fewshot").id


def _dspy_example(example: Example, inputs: dict[str, Any]) -> dspy.Example:
    import dspy

    answer = example.known_answers[0] if example.known_answers else ABSTENTION
    # The question as the data has it: it is the way back to the example.
    return dspy.Example(**{**inputs, "question": example.question}, answer=answer).with_inputs("question")


@dataclass(frozen=True)
class Parts:
    """How many examples each part of the shuffled training examples holds, in this order.

    Attributes:
        teacher: Shown by the teacher.
        learn: Learned from.
        held: Held out, to choose by.
    """

    teacher: int
    learn: int
    held: int

    def cut(self, examples: Sequence[dspy.Example]) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """The examples to learn from and those held out."""
        end = self.teacher + self.learn
        return list(examples[self.teacher : end]), list(examples[end : end + self.held])


def part(train: int, *, teacher: int = 0, learn: int, held: int = 0) -> Parts:
    """Cut `train` examples: first the teacher's, and at most half of the rest is held out."""
    rest = max(0, train - teacher)
    kept = min(held, rest // 2)
    return Parts(min(teacher, train), min(learn, rest - kept), kept)


def teachable(examples: Sequence[Example], search: SearchCall) -> tuple[Example, ...]:
    """The examples whose evidence a search finds whole: a demo whose passages lack its answer teaches to guess.

    Those without evidence are kept, since nothing is known about them.
    """
    return tuple(
        example
        for example in examples
        if not example.evidence or gold_in_context(example, [p.span for p in search(example.question)])
    )
