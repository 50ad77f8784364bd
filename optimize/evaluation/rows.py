"""What an evaluation leaves: one row for every example, and what they come to together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from optimize.inference.statistics import mean_and_stderr
from programs.types import Span

FAILURE_LIMIT = 0.05
"""Above this share of failures an evaluation is invalid: its mean is over the questions that happened to work."""


@dataclass(frozen=True, slots=True)
class Row:
    """What happened to one example.

    Answering and judging are told apart by when they happen: calls that the metrics make are the judge's, whichever LM
    they ask. Numbers of calls, tokens, money and seconds are sums over all repeats.

    Attributes:
        example_id: Which one.
        score: The metric's value in [0, 1], the mean over the repeats; None where one failed, which is not a zero.
        answer: The program's answer, of the first repeat; None where it failed.
        spans: Where the passages shown to the LM lie, best first; of the first repeat.
        measures: Retrieval measures of the first repeat; empty where the example has no evidence.
        context_tokens: Tokens of all passages of the first repeat, by the counting tokenizer.
        prompt_tokens: Tokens that the LM read, over all calls of this example, as recorded the first time.
        completion_tokens: Tokens that the LM wrote.
        calls: LM calls, answered from the cache or not.
        paid_calls: LM calls that were really made.
        usd: Money, where every price is known.
        latency_s: Seconds spent waiting for the LM, as recorded the first time.
        error: What went wrong, on one line, or None.
        feedback: What the metric says of the answer: of the first repeat that is not perfect.
        also: Name of a further metric -> its value in [0, 1], the mean over the repeats.
        also_errors: Name of a further metric that failed -> what went wrong, on one line.
        repeats: How often the example was answered.
        judge_calls: LM calls of all metrics, answered from the cache or not.
        judge_paid_calls: Those that were really made.
        judge_tokens: Tokens that they read and wrote.
        judge_usd: Their money, where every price is known.
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
    feedback: str = ""
    also: Mapping[str, float] = field(default_factory=dict)
    also_errors: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1
    judge_calls: int = 0
    judge_paid_calls: int = 0
    judge_tokens: int = 0
    judge_usd: float | None = 0.0

    @property
    def total_calls(self) -> int:
        """LM calls for answering and judging: what the budget counts."""
        return self.calls + self.judge_calls

    @property
    def total_tokens(self) -> int:
        """Tokens for answering and judging, read and written."""
        return self.prompt_tokens + self.completion_tokens + self.judge_tokens

    @property
    def total_usd(self) -> float | None:
        """Money for answering and judging; None where some price is not known."""
        return None if self.usd is None or self.judge_usd is None else self.usd + self.judge_usd

    def as_json(self) -> dict[str, Any]:
        """A JSON-serializable dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read a row back; one that was written before a field was there has the field's default."""
        return cls(**{**line, "spans": tuple(Span(**span) for span in line["spans"])})


@dataclass(frozen=True)
class Evaluation:
    """The rows of one program over some examples, in the order of the examples."""

    rows: tuple[Row, ...]

    def __add__(self, other: Evaluation) -> Evaluation:
        """The rows of both, of the same program over different examples: an evaluation can be done in parts."""
        both = {row.example_id for row in self.rows} & {row.example_id for row in other.rows}
        if both:
            raise ValueError(f"{min(both)!r} was evaluated in both parts")
        return Evaluation(self.rows + other.rows)

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

    def also(self, name: str) -> dict[str, float]:
        """Example id -> value of a further metric, where it is known: its failures do not touch the score."""
        return {row.example_id: row.also[name] for row in self.rows if name in row.also}

    def also_failures(self, name: str) -> int:
        """Scored examples on which a further metric failed."""
        return sum(name in row.also_errors for row in self.rows)

    def total(self, name: str) -> float:
        """Sum of a numeric attribute over all rows."""
        return sum(getattr(row, name) for row in self.rows)

    @property
    def usd(self) -> float | None:
        """Money of all answers, without the judging; None where some price is not known."""
        return money(row.usd for row in self.rows)

    @property
    def total_usd(self) -> float | None:
        """Money in all, the judging included; None where some price is not known."""
        return money(row.total_usd for row in self.rows)

    def measure_means(self) -> dict[str, float]:
        """Mean of each retrieval measure over the rows that have it."""
        names = dict.fromkeys(name for row in self.rows for name in row.measures)
        values = {name: [row.measures[name] for row in self.rows if name in row.measures] for name in names}
        return {name: math.fsum(found) / len(found) for name, found in values.items()}


def money(prices: Iterable[float | None]) -> float | None:
    """The sum of prices; None where one is not known."""
    known = list(prices)
    return None if None in known else math.fsum(price or 0.0 for price in known)
