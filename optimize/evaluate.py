"""Run a program over examples and keep what happened to each: the only way that scores come about."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from optimize.example import Example
from optimize.measures import measure_retrieval
from optimize.metrics import Metric
from optimize.statistics import mean_and_stderr
from programs.errors import BudgetExhaustedError, EndpointError
from programs.metering import collect_calls
from programs.tokens import count_tokens
from programs.types import Span

if TYPE_CHECKING:
    import dspy

FAILURE_LIMIT = 0.05
"""Above this share of failures an evaluation is invalid: its mean is over the questions that happened to work."""


@dataclass(frozen=True, slots=True)
class Row:
    """What happened to one example.

    Attributes:
        example_id: Which one.
        score: The metric's value in [0, 1]; None where the call failed, which is not a zero.
        answer: The program's answer; None where it failed.
        spans: Where the passages shown to the LM lie, best first.
        measures: Retrieval measures; empty where the example has no evidence.
        context_tokens: Tokens of all passages, by the counting tokenizer.
        prompt_tokens: Tokens that the LM read, over all calls of this example, as recorded the first time.
        completion_tokens: Tokens that the LM wrote.
        calls: LM calls, answered from the cache or not.
        paid_calls: LM calls that were really made.
        usd: Money, where every price is known.
        latency_s: Seconds spent waiting for the LM, as recorded the first time.
        error: What went wrong, on one line, or None.
    """

    example_id: str
    score: float | None
    answer: str | None
    spans: tuple[Span, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    context_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    paid_calls: int = 0
    usd: float | None = None
    latency_s: float = 0.0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """A JSON-serializable dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read a row back."""
        return cls(**{**line, "spans": tuple(Span(**span) for span in line["spans"])})


@dataclass(frozen=True)
class Evaluation:
    """The rows of one program over some examples, in the order of the examples."""

    rows: tuple[Row, ...]

    @property
    def scores(self) -> dict[str, float]:
        """Example id -> score, without the failures."""
        return {row.example_id: row.score for row in self.rows if row.score is not None}

    @property
    def failures(self) -> int:
        """Examples without a score."""
        return len(self.rows) - len(self.scores)

    @property
    def empty_answers(self) -> int:
        """Examples answered with nothing."""
        return sum(row.answer is not None and not row.answer.strip() for row in self.rows)

    @property
    def valid(self) -> bool:
        """Whether few enough failed for the mean to speak for all."""
        return bool(self.rows) and self.failures <= FAILURE_LIMIT * len(self.rows)

    def mean(self, clusters: Mapping[str, Hashable] | None = None) -> tuple[float, float]:
        """Mean score and its standard error over the scored examples; NaN where nothing is known."""
        scores = self.scores
        return mean_and_stderr(list(scores.values()), [clusters[i] for i in scores] if clusters else None)

    def total(self, name: str) -> float:
        """Sum of a numeric attribute over all rows."""
        return sum(getattr(row, name) for row in self.rows)

    @property
    def usd(self) -> float | None:
        """Money in all; None where some price is not known."""
        return None if any(row.usd is None for row in self.rows) else sum(row.usd or 0.0 for row in self.rows)

    def measure_means(self) -> dict[str, float]:
        """Mean of each retrieval measure over the rows that have it."""
        names = dict.fromkeys(name for row in self.rows for name in row.measures)
        values = {name: [row.measures[name] for row in self.rows if name in row.measures] for name in names}
        return {name: math.fsum(found) / len(found) for name, found in values.items()}


OnRow = Callable[[Row], None]


def evaluate(
    program: dspy.Module,
    examples: Sequence[Example],
    metric: Metric,
    threads: int,
    on_row: OnRow | None = None,
) -> Evaluation:
    """Run `program` on every example, several at a time.

    The DSPy settings of the caller's context (LM, adapter) hold in the threads too.

    Args:
        program: Takes `question=`; its prediction has an `answer` and, for the measures, `passages`.
        examples: What to run on.
        metric: Scores a prediction; what it raises is the example's failure.
        threads: Examples in flight at the same time.
        on_row: Called in this thread with each row, in order.

    Raises:
        EndpointError: The LM refuses every call; nothing more is sent.
        BudgetExhaustedError: The budget is used up.
    """
    rows: list[Row] = []
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        futures = [pool.submit(copy_context().run, _run_one, program, example, metric) for example in examples]
        try:
            for future in futures:
                rows.append(future.result())
                if on_row is not None:
                    on_row(rows[-1])
        finally:
            for future in futures:
                future.cancel()
    return Evaluation(tuple(rows))


def _run_one(program: dspy.Module, example: Example, metric: Metric) -> Row:
    """One example; whatever a program or a metric raises becomes its row's error, except what ends the whole run."""
    prediction: dspy.Prediction | None = None
    score, error = None, None
    with collect_calls() as calls:
        try:
            prediction = program(question=example.question)
            score = metric(example, prediction)
        except (EndpointError, BudgetExhaustedError):
            raise
        except Exception as problem:  # noqa: BLE001  # a person's program or metric may raise anything
            error = f"{type(problem).__name__}: {problem}".splitlines()[0][:500]
    passages = tuple(prediction.get("passages") or ()) if prediction is not None else ()
    answer = prediction.get("answer") if prediction is not None else None
    prices = [call.usd for call in calls]
    return Row(
        example_id=example.id,
        score=score,
        answer=answer,
        spans=tuple(passage.span for passage in passages),
        measures=measure_retrieval(example, passages) if prediction is not None else {},
        context_tokens=sum(count_tokens(passage.text) for passage in passages),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        calls=len(calls),
        paid_calls=sum(call.paid for call in calls),
        usd=None if None in prices else math.fsum(price or 0.0 for price in prices),
        latency_s=math.fsum(call.latency_s for call in calls),
        error=error,
    )
