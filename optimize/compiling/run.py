"""Runs one optimizer, and believes nothing that it did not count."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimize.compiling.candidate import Candidate, read_candidate
from optimize.compiling.optimizer import Optimizer
from optimize.compiling.table import open_optimizer
from optimize.compiling.tally import CompileFailedError, Tally
from optimize.compiling.task import CompileTask
from programs.errors import RagwrightError

ALL_ERRORS = 10**9
"""DSPy gives up after ten errors, replies that do not parse among them; whether there are too many is judged here."""


@dataclass(frozen=True)
class Compiled:
    """What an optimizer made.

    Attributes:
        candidates: Distinct ones that are not the bare program, best first.
        calls: Role -> LM calls, cached ones included.
        paid: Role -> LM calls that were really sent.
    """

    candidates: list[Candidate]
    calls: Mapping[str, int]
    paid: Mapping[str, int]


def compile_candidates(
    task: CompileTask, name: str, params: Mapping[str, Any] | list[Any]
) -> tuple[list[Candidate], int]:
    """Run one optimizer: `run_optimizer` with the sum of the calls.

    Raises:
        RagwrightError: As `run_optimizer`.
    """
    compiled = run_optimizer(task, name, params)
    return compiled.candidates, sum(compiled.calls.values())


def run_optimizer(task: CompileTask, name: str, params: Mapping[str, Any] | list[Any]) -> Compiled:
    """Run one optimizer. The task LM and its prompt format are those of the caller's DSPy context.

    Equal seeds make equal requests, so with a response cache a run that was interrupted goes on where it was: what was
    answered is not asked again.

    Raises:
        CompileFailedError: There are too few examples, or the reflection LM may not write enough: nothing was asked. Or
            more than 5 % of the calls failed, or nothing was scored: what came out is not trusted.
        BudgetExhaustedError: The budget ended; nothing is made.
        EndpointError: The LM refuses every call; nothing is made.
        RagwrightError: The optimizer or a parameter is unknown, or a parameter is out of range.
    """
    import dspy

    from optimize.compiling.reflecting import FormatByRole, ProposalAdapter

    optimizer = open_optimizer(name, params)
    reflection = task.reflection or dspy.settings.lm
    try:
        optimizer.check_train(len(task.usable))
        optimizer.check_writer(reflection.model, reflection.kwargs.get("max_tokens"))
    except RagwrightError as error:
        raise CompileFailedError(str(error), 0) from None
    tally = Tally()
    watched = replace(task, metric=tally.scoring(task.metric), reflection=tally.watch(reflection, "reflection"))
    context = dspy.context(
        lm=tally.watch(dspy.settings.lm, "task"),
        adapter=FormatByRole(dspy.settings.adapter or dspy.ChatAdapter(), ProposalAdapter(tally)),
        num_threads=task.threads,
        max_errors=ALL_ERRORS,
    )
    log = task.folder / f"{name}.log" if task.folder is not None else None
    with context, quiet_dspy(log):
        candidates = _made(optimizer, name, watched, tally)
    return Compiled(candidates, tally.calls, tally.paid)


def _made(optimizer: Optimizer, name: str, task: CompileTask, tally: Tally) -> list[Candidate]:
    """The distinct candidates of an optimizer that went well."""
    found = {read_candidate(task.build(), task.by_question).content: None}
    candidates: list[Candidate] = []
    spent: dict[str, int] = {}
    try:
        for made in optimizer.compile(task):
            calls = {role: count - spent.get(role, 0) for role, count in tally.calls.items()}
            candidate = read_candidate(made.program, task.by_question, name, made.params, made.parents, calls)
            if candidate.content not in found:
                found[candidate.content] = None
                candidates.append(candidate)
                spent = tally.calls
    except Exception as error:
        tally.confirm()
        if isinstance(error, RagwrightError):
            raise
        said = tally.problem(scores=False) or tally.silence or tally.blame(error)
        raise CompileFailedError(f"{name} failed: {said}.", tally.total) from error
    tally.confirm()
    problem = tally.problem(scores=optimizer.scores) or (None if candidates else tally.silence)
    if problem is not None:
        raise CompileFailedError(f"{name} failed: {problem}.", tally.total)
    return candidates


@contextlib.contextmanager
def quiet_dspy(log: Path | None = None) -> Iterator[None]:
    """Keep what DSPy's optimizers print, log, draw and warn off the terminal, where our own progress stands.

    Args:
        log: The file that it goes to instead; None: nowhere.
    """
    with contextlib.ExitStack() as stack:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        sink = stack.enter_context(open(log or os.devnull, "a", encoding="utf-8", errors="replace"))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logger = logging.getLogger("dspy")
        handlers, propagate = logger.handlers, logger.propagate
        logger.handlers, logger.propagate = [logging.StreamHandler(sink)], False
        try:
            yield
        finally:
            logger.handlers, logger.propagate = handlers, propagate
