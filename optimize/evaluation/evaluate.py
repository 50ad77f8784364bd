"""Run a program over examples and keep what happened to each: the only way that scores come about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from optimize.data.example import Example
from optimize.evaluation.rows import FAILURE_LIMIT as FAILURE_LIMIT
from optimize.evaluation.rows import Evaluation as Evaluation
from optimize.evaluation.rows import Row as Row
from optimize.evaluation.rows import money
from optimize.measures.table import measure_retrieval
from optimize.metrics.metric import Metric, Score
from programs.errors import BudgetExhaustedError, EndpointError
from programs.metering import CallRecord, collect_calls
from programs.tokens import count_tokens

if TYPE_CHECKING:
    import dspy

    from optimize.evaluation.ending import Ending

T = TypeVar("T")

ROLLOUTS_APART = 1_000_000
"""Distance of the rollout numbers of two repeats: programs such as `dspy.BestOfN` count on from what they find."""


OnRow = Callable[[Row], None]


def evaluate(
    program: dspy.Module,
    examples: Sequence[Example],
    metric: Metric,
    threads: int,
    on_row: OnRow | None = None,
    also: Sequence[Metric] = (),
    repeats: int = 1,
) -> Evaluation:
    """Run `program` on every example, several at a time.

    The DSPy settings of the caller's context (LM, adapter) hold in the threads too.

    A further metric that fails on an example takes nothing from its score: else the study's own comparison would lose
    questions to the hiccups of a judge that only guards. The value is missing then, and counted in `also_errors`. Where
    the example itself failed, further metrics are not asked.

    Args:
        program: Takes `question=`; its prediction has an `answer` and, for the measures, `passages`.
        examples: What to run on.
        metric: Scores a prediction; what it raises is the example's failure.
        threads: Examples in flight at the same time.
        on_row: Called in this thread with each row, in order.
        also: Further metrics, with names of their own.
        repeats: How often each example is answered. The score is the mean, and one failure fails the example. Above
            temperature 0 each repeat is drawn anew and kept under a key of its own in the response cache; at 0 all of
            them are the first one. Equal answers are judged once.

    Raises:
        EndpointError: An LM refuses every call; nothing more is sent.
        BudgetExhaustedError: The budget is used up.
    """
    import dspy

    from optimize.evaluation.ending import Ending

    assert repeats >= 1, "an example is answered at least once"
    assert len({one.name for one in also}) == len(also), "one name for each further metric"
    work = _Work(program, metric, tuple(also), repeats, Ending())
    rows: list[Row] = []
    listeners = [*(dspy.settings.get("callbacks") or []), work.ending]
    with dspy.context(callbacks=listeners), ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        futures = [pool.submit(copy_context().run, work.row, example) for example in examples]
        try:
            for future in futures:
                rows.append(future.result())
                if on_row is not None:
                    on_row(rows[-1])
        finally:
            for future in futures:
                future.cancel()
    return Evaluation(tuple(rows))


@dataclass(frozen=True)
class _Attempt:
    """What one repeat came to."""

    prediction: dspy.Prediction | None
    score: Score | None
    error: str | None
    also: Mapping[str, Score]
    also_errors: Mapping[str, str]
    calls: Sequence[CallRecord]
    judging: Sequence[CallRecord]


@dataclass(frozen=True)
class _Work:
    """What is done to every example; see `evaluate`."""

    program: dspy.Module
    metric: Metric
    also: tuple[Metric, ...]
    repeats: int
    ending: Ending

    def row(self, example: Example) -> Row:
        """Answer and score one example."""
        attempts: list[_Attempt] = []
        while len(attempts) < self.repeats and not (attempts and attempts[-1].error):
            with _drawn_anew(len(attempts)):
                attempts.append(self.attempt(example))
        return _row(example, attempts)

    def attempt(self, example: Example) -> _Attempt:
        """Whatever a program or a metric raises becomes the attempt's error, except what ends the whole run."""
        also: dict[str, Score] = {}
        also_errors: dict[str, str] = {}
        score = None
        with collect_calls() as calls:
            prediction, error = self.tried(lambda: self.program(question=example.question))
        with collect_calls() as judging:
            if error is None:
                score, error = self.tried(lambda: self.metric(example, prediction))
            if score is not None:
                for one in self.also:
                    value, problem = self.tried(lambda one=one: one(example, prediction))  # type: ignore[misc]
                    if value is not None:
                        also[one.name] = value
                    else:
                        also_errors[one.name] = problem or ""
        return _Attempt(prediction, score, error, also, also_errors, calls, judging)

    def tried(self, work: Callable[[], T]) -> tuple[T | None, str | None]:
        """The work's result, or None and what went wrong on one line."""
        try:
            result, error = work(), None
        except (EndpointError, BudgetExhaustedError):
            raise
        except Exception as problem:  # noqa: BLE001  # a person's program or metric may raise anything
            result, error = None, f"{type(problem).__name__}: {problem}".splitlines()[0][:500]
        self.ending.check()
        return result, error


@contextmanager
def _drawn_anew(repeat: int) -> Iterator[None]:
    """The context in which the LM's answers are this repeat's own: by DSPy's rollout number, a part of their keys."""
    import dspy

    lm = dspy.settings.lm
    # At temperature 0 there is nothing to draw, and DSPy would warn of it.
    if repeat == 0 or lm is None or lm.kwargs.get("temperature") == 0:
        yield
        return
    rollout = (lm.kwargs.get("rollout_id") or 0) + repeat * ROLLOUTS_APART
    with dspy.context(lm=lm.copy(rollout_id=rollout)):
        yield


def _row(example: Example, attempts: Sequence[_Attempt]) -> Row:
    """The row of an example from its repeats, of which only the last can have failed."""
    prediction, error = attempts[0].prediction, attempts[-1].error
    scores = [attempt.score for attempt in attempts if attempt.score is not None]
    calls = [call for attempt in attempts for call in attempt.calls]
    judging = [call for attempt in attempts for call in attempt.judging]
    also_errors = {name: problem for attempt in attempts for name, problem in attempt.also_errors.items()}
    passages = tuple(prediction.get("passages") or ()) if prediction is not None else ()
    return Row(
        example_id=example.id,
        score=None if error is not None else math.fsum(scores) / len(scores),
        answer=prediction.get("answer") if prediction is not None else None,
        spans=tuple(passage.span for passage in passages),
        measures=measure_retrieval(example, passages) if prediction is not None else {},
        context_tokens=sum(count_tokens(passage.text) for passage in passages),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        calls=len(calls),
        paid_calls=sum(call.paid for call in calls),
        usd=money(call.usd for call in calls),
        latency_s=math.fsum(call.latency_s for call in calls),
        error=error,
        feedback=next((score.feedback for score in scores if score < 1), ""),
        also={} if error is not None else _means(attempts, also_errors),
        also_errors={} if error is not None else also_errors,
        repeats=len(attempts),
        judge_calls=len(judging),
        judge_paid_calls=sum(call.paid for call in judging),
        judge_tokens=sum(call.prompt_tokens + call.completion_tokens for call in judging),
        judge_usd=money(call.usd for call in judging),
    )


def _means(attempts: Sequence[_Attempt], failed: Iterable[str]) -> dict[str, float]:
    """Mean of each further metric over the repeats, where it failed in none."""
    names = [name for name in attempts[0].also if name not in failed]
    return {name: math.fsum(attempt.also[name] for attempt in attempts) / len(attempts) for name in names}
