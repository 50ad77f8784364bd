"""DSPy optimizers behind one table: each makes candidates from the training examples.

To add one, write a function from `CompileTask` and its parameters to programs, and enter it in `OPTIMIZERS`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimize.candidate import Candidate, apply_candidate, read_candidate
from optimize.example import Example
from optimize.measures import gold_in_context
from optimize.metrics import Metric
from programs.errors import RagwrightError
from programs.metering import collect_calls

if TYPE_CHECKING:
    import dspy

    from programs.rag import SearchCall

GOOD_ENOUGH = 0.6
"""Score from which an answer of the teacher may serve as a demo."""


@dataclass(frozen=True)
class CompileTask:
    """What every optimizer is given.

    Attributes:
        build: Makes a fresh bare program over the pipeline that compiling runs in.
        train: Training examples, in the order to use them.
        metric: What a good answer is.
        seed: Of everything random.
    """

    build: Callable[[], dspy.Module]
    train: tuple[Example, ...]
    metric: Metric
    seed: int

    @property
    def by_id(self) -> dict[str, Example]:
        """Training examples by id."""
        return {example.id: example for example in self.train}

    @property
    def by_question(self) -> dict[str, Example]:
        """Training examples by question."""
        return {example.question: example for example in self.train}

    def trainset(self) -> list[dspy.Example]:
        """The training examples as DSPy's, shuffled by the seed; unanswerable ones show how to abstain.

        Those whose answers are not known show nothing and are left out.
        """
        import dspy

        examples = [
            dspy.Example(question=e.question, answer=e.answers[0] if e.answers else "unanswerable").with_inputs(
                "question"
            )
            for e in self.train
            if e.answers is not None
        ]
        random.Random(self.seed).shuffle(examples)
        return examples

    def dspy_metric(self, example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float:
        """The study's metric with the arguments that DSPy's optimizers give."""
        return self.metric(self.by_question[example.question], prediction)


def teachable(examples: Sequence[Example], search: SearchCall) -> tuple[Example, ...]:
    """The examples whose evidence a search finds whole: a demo whose passages lack its answer teaches to guess.

    Those without evidence are kept, since nothing is known about them.
    """
    return tuple(
        example
        for example in examples
        if not example.evidence or gold_in_context(example, [p.span for p in search(example.question)])
    )


Variants = Iterator[tuple["dspy.Module", dict[str, Any], str]]
"""Compiled program, the parameters that made it, id of its parent."""


def labeled_fewshot(task: CompileTask, *, k: int | list[int] = [1, 3]) -> Variants:  # noqa: B006  # read only
    """DSPy's LabeledFewShot: gold answers as demos, no LM call. One candidate for each `k`."""
    from dspy.teleprompt import LabeledFewShot

    for count in [k] if isinstance(k, int) else k:
        yield LabeledFewShot(k=count).compile(task.build(), trainset=task.trainset(), sample=False), {"k": count}, ""


def bootstrap_fewshot(
    task: CompileTask, *, max_bootstrapped_demos: int = 3, teacher_demos: int = 2, attempts: int = 12
) -> Variants:
    """DSPy's BootstrapFewShot: the teacher's own good answers as demos.

    The teacher is the program with `teacher_demos` labeled demos, since a bare small model has little to teach.
    At most `attempts` training examples are tried.
    """
    from dspy.teleprompt import BootstrapFewShot, LabeledFewShot

    trainset = task.trainset()
    labeled = LabeledFewShot(k=teacher_demos).compile(task.build(), trainset=trainset, sample=False)
    parent = read_candidate(labeled, task.by_question, labeled_fewshot.__name__, {"k": teacher_demos})
    teacher = task.build()
    apply_candidate(teacher, parent, task.by_id)
    teacher._compiled = True
    optimizer = BootstrapFewShot(
        metric=task.dspy_metric,
        metric_threshold=GOOD_ENOUGH,
        max_bootstrapped_demos=max_bootstrapped_demos,
        max_labeled_demos=0,
        max_errors=attempts,
    )
    held_out = trainset[teacher_demos : teacher_demos + attempts]
    params = {"max_bootstrapped_demos": max_bootstrapped_demos, "teacher_demos": teacher_demos, "attempts": attempts}
    yield optimizer.compile(task.build(), teacher=teacher, trainset=held_out), params, parent.id


OPTIMIZERS: dict[str, Callable[..., Variants]] = {
    "labeled_fewshot": labeled_fewshot,
    "bootstrap_fewshot": bootstrap_fewshot,
}


def check_optimizer(optimizer: str, params: Mapping[str, Any]) -> None:
    """See whether an optimizer can be called so.

    Raises:
        RagwrightError: The optimizer or one of its parameters is unknown.
    """
    if optimizer not in OPTIMIZERS:
        raise RagwrightError(f"unknown optimizer {optimizer!r}; choices: {', '.join(OPTIMIZERS)}.")
    known = list(inspect.signature(OPTIMIZERS[optimizer]).parameters)[1:]
    if unknown := sorted(set(params) - set(known)):
        raise RagwrightError(f"{optimizer} has no parameter {unknown[0]!r}; it takes: {', '.join(known)}.")


def compile_candidates(task: CompileTask, optimizer: str, params: Mapping[str, Any]) -> tuple[list[Candidate], int]:
    """Run one optimizer. The LM and the adapter are those of the caller's DSPy context.

    Candidates that ended up without a demo and with unchanged instructions are left out: they are the bare program.

    Returns:
        The candidates, and the LM calls that making them took.

    Raises:
        RagwrightError: The optimizer or one of its parameters is unknown.
    """
    check_optimizer(optimizer, params)
    bare = read_candidate(task.build(), task.by_question)
    candidates = []
    with collect_calls() as calls, quiet_dspy():
        spent = 0
        for program, used, parent in OPTIMIZERS[optimizer](task, **params):
            candidate = read_candidate(program, task.by_question, optimizer, used, parent, len(calls) - spent)
            spent = len(calls)
            if candidate.prompts != bare.prompts:
                candidates.append(candidate)
    return candidates, len(calls)


@contextlib.contextmanager
def quiet_dspy() -> Iterator[None]:
    """Keep what DSPy's optimizers print, log and draw off the terminal, where our own progress stands."""
    logger = logging.getLogger("dspy")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
