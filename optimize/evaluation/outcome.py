"""What a study found: plain data that the report, the export and MLflow read."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from optimize.evaluation.evaluate import FAILURE_LIMIT, Evaluation
from optimize.evaluation.ledger import Ledger
from optimize.inference.statistics import Fall, PairedDifference, Verdict, score_interval
from programs.config import PipelineConfig

Phase = Literal["baseline", "search", "confirm", "test"]

SCORED_ON: dict[Phase, str] = {"baseline": "search", "search": "search", "confirm": "confirm", "test": "test"}
"""Phase -> the examples of its scores."""


@dataclass(frozen=True, slots=True)
class Summary:
    """An evaluation in numbers.

    Attributes:
        score: Mean of the metric over the scored examples, in [0, 1]; NaN if none was scored.
        stderr: Its standard error, clustered by group of questions.
        low: Lower end of the score's two-sided 95 % interval; NaN if none was scored.
        high: Upper end.
        n: Examples, failures included.
        failures: Examples without a score.
        empty_answers: Examples answered with nothing.
        calls: LM calls, cached ones included.
        paid_calls: LM calls that were really made.
        prompt_tokens: Tokens read by the LM, in all.
        completion_tokens: Tokens written by the LM, in all.
        context_tokens: Mean tokens of passages a question.
        usd: Money; None where a price is not known.
        latency_p50: Seconds a question waited for the LM, median.
        latency_p95: The same, 95th percentile.
        measures: Mean retrieval measures, over the questions that have evidence.
    """

    score: float
    stderr: float
    n: int
    failures: int
    empty_answers: int
    calls: int
    paid_calls: int
    prompt_tokens: int
    completion_tokens: int
    context_tokens: float
    usd: float | None
    latency_p50: float
    latency_p95: float
    measures: Mapping[str, float] = field(default_factory=dict)
    low: float = math.nan
    high: float = math.nan

    @property
    def valid(self) -> bool:
        """Whether few enough examples failed for the mean to speak for all."""
        return self.failures <= FAILURE_LIMIT * self.n

    @property
    def answers(self) -> bool:
        """Whether few enough examples failed or were answered with nothing to be a fair opponent."""
        return self.failures + self.empty_answers <= FAILURE_LIMIT * self.n

    def as_metrics(self) -> dict[str, float]:
        """Flat name -> number, without what is not known; the same names in MLflow, the report and the manifest."""
        values = {**asdict(self), **self.measures}
        del values["measures"]
        return {name: float(value) for name, value in values.items() if value is not None and not math.isnan(value)}


def summarize(evaluation: Evaluation, clusters: Mapping[str, Hashable]) -> Summary:
    """Put an evaluation into numbers; `clusters` maps example ids to groups of dependent questions."""
    score, stderr = evaluation.mean(clusters)
    scores = evaluation.scores
    low, high = score_interval(list(scores.values()), [clusters[i] for i in scores]) if scores else (math.nan, math.nan)
    latencies = [row.latency_s / row.repeats for row in evaluation.rows] or [math.nan]
    return Summary(
        score=score,
        stderr=stderr,
        n=len(evaluation.rows),
        failures=evaluation.failures,
        empty_answers=evaluation.empty_answers,
        calls=int(evaluation.total("calls")),
        paid_calls=int(evaluation.total("paid_calls")),
        prompt_tokens=int(evaluation.total("prompt_tokens")),
        completion_tokens=int(evaluation.total("completion_tokens")),
        context_tokens=evaluation.total("context_tokens") / max(1, len(evaluation.rows)),
        usd=evaluation.usd,
        latency_p50=float(np.quantile(latencies, 0.5)),
        latency_p95=float(np.quantile(latencies, 0.95)),
        measures=evaluation.measure_means(),
        low=low,
        high=high,
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration with one candidate, scored in one phase.

    Attributes:
        unit: Name of the evaluation in the run folder, such as `trial-0007`; its rows are there.
        phase: Which part of the study it belongs to; scores of different phases are never mixed.
        config: The pipeline.
        candidate: Id of the compiled candidate.
        summary: The numbers.
        note: What became of it, in words, or empty.
        estimate: What is believed of its score: of a trial on all search questions, of a finalist on these and the
            confirm questions together; None where nothing is, NaN of a finalist that failed too much.
        spread: Standard deviation of that; of a finalist, of its difference to the best.
    """

    unit: str
    phase: Phase
    config: PipelineConfig
    candidate: str
    summary: Summary
    note: str = ""
    estimate: float | None = None
    spread: float | None = None

    @property
    def params(self) -> dict[str, Any]:
        """The configuration and the candidate under the names they have everywhere."""
        return {**self.config.as_params(), "candidate": self.candidate}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read an entry back."""
        return cls(
            **{**content, "config": PipelineConfig(**content["config"]), "summary": Summary(**content["summary"])}
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a study cost so far, and what it was allowed.

    Attributes:
        calls: LM calls, cached ones included: what the budget counts.
        paid_calls: LM calls that were really made.
        prompt_tokens: Tokens read by the LM.
        completion_tokens: Tokens written by the LM.
        usd: Money; None where a price is not known.
        seconds: Wall-clock time over all processes that worked on the study.
        lm_seconds: Time spent waiting for the LM, call by call, as recorded the first time.
        calls_allowed: The budget's `lm_calls`.
        by_role: The same for each role: `task`, `reflection`, `judge`.
    """

    calls: int
    paid_calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    seconds: float
    calls_allowed: int
    by_role: Ledger = field(default_factory=Ledger)
    lm_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric that may not fall, on the test questions.

    Attributes:
        metric: Its name.
        allowed: By how much it may fall.
        difference: Winner minus baseline.
        state: Whether it is shown to have fallen further, shown to have held, or neither.
    """

    metric: str
    allowed: float
    difference: PairedDifference
    state: Fall


@dataclass(frozen=True)
class Outcome:
    """Everything that a study found.

    Attributes:
        study: Its name.
        fingerprint: What it depends on: data, space, program, metric, LM and seed, but not the budget.
        dataset: Name of the data set.
        dataset_fingerprint: Which state of it.
        program: `rag`, `multihop` or `module:factory`.
        metric: The first objective, higher is better.
        lm: Who answered, in words.
        seed: Of everything random.
        baseline: The baseline on the search examples.
        trials: Every trial of the search, in order.
        finalists: The best few and the baseline (first) on the confirm examples; empty before that phase.
        winner: The configuration chosen by the confirm phase, as its finalist; None before.
        test_baseline: The baseline on the test examples; None before.
        test_winner: The winner on the test examples; None before.
        difference: Winner minus baseline on the same test questions.
        verdict: In words.
        choice: How confirm chose, in words; empty before.
        optimism: By how much the best search score is expected to be too high because it is the best of many; None
            where that is not known.
        guards: The metrics that may not fall, on the test questions.
        served_agreement: Share of what the search that was measured finds that the search in use finds, too, in [0, 1];
            None where they are the same.
        test_openings: How often the test split of this state of the data has been opened, this time included.
        spent: What it cost.
        warnings: What a reader of the numbers must know.
    """

    study: str
    fingerprint: str
    dataset: str
    dataset_fingerprint: str
    program: str
    metric: str
    lm: str
    seed: int
    baseline: Entry
    trials: tuple[Entry, ...]
    spent: Spent
    finalists: tuple[Entry, ...] = ()
    winner: Entry | None = None
    test_baseline: Entry | None = None
    test_winner: Entry | None = None
    difference: PairedDifference | None = None
    verdict: Verdict | None = None
    choice: str = ""
    optimism: float | None = None
    guards: tuple[Guard, ...] = ()
    served_agreement: float | None = None
    test_openings: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def best_trial(self) -> Entry | None:
        """The valid trial that is believed to be best."""
        valid = [trial for trial in self.trials if trial.summary.valid]
        return max(valid, key=lambda trial: trial.estimate or 0.0, default=None)

    @property
    def kept_baseline(self) -> bool:
        """Whether confirm chose the baseline, so that there was nothing to test."""
        return bool(self.finalists) and self.winner is None and bool(self.choice)

    def as_json(self) -> dict[str, Any]:
        """A JSON-serializable dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read an outcome back."""
        values = dict(content)
        for name in ("baseline", "winner", "test_baseline", "test_winner"):
            values[name] = Entry.from_json(values[name]) if values[name] else None
        for name in ("trials", "finalists"):
            values[name] = tuple(Entry.from_json(entry) for entry in values[name])
        by_role = Ledger.from_json(values["spent"]["by_role"]["by_role"])
        values["spent"] = Spent(**{**values["spent"], "by_role": by_role})
        values["guards"] = tuple(
            Guard(**{**guard, "difference": PairedDifference(**guard["difference"])}) for guard in values["guards"]
        )
        values["difference"] = PairedDifference(**values["difference"]) if values["difference"] else None
        values["warnings"] = tuple(values["warnings"])
        return cls(**values)
