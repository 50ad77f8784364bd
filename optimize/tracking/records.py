"""A study's runs in numbers: params and metrics for MLflow, under the same names in every run, as plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from optimize.compiling.candidate import Candidate
from optimize.data.dataset import SPLITS, Dataset
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.evaluation.ledger import Ledger
from optimize.evaluation.outcome import SCORED_ON, Entry, Outcome
from optimize.inference.statistics import mean_and_stderr
from optimize.reporting.headline import metric_title
from optimize.searching.point import questions_a_step

if TYPE_CHECKING:
    from mlflow.entities import Dataset as DatasetEntity

COMPLETE, STOPPED, FAILED, WINNER = "complete", "stopped early", "failed", "winner"
"""What becomes of a trial, an evaluation or a compile turn."""

_LONGEST_PARAM = 500

Groups = Mapping[str, Hashable]
"""Example id -> its group of dependent questions."""


def metric_name(name: str) -> str:
    """A name that MLflow takes: `nDCG@10` becomes `nDCG_10`."""
    return re.sub(r"[^\w./ -]", "_", name)


def entry_params(entry: Entry) -> dict[str, Any]:
    """The configuration, the candidate and what made it."""
    return {**entry.params, "optimizer": entry.candidate.rpartition("-")[0]}


def entry_outcome(entry: Entry) -> str:
    """What became of an evaluation, before it is known whether it is the winner's."""
    if not entry.summary.valid:
        return FAILED
    return STOPPED if entry.phase == "search" and entry.note else COMPLETE


def entry_metrics(entry: Entry, metric: str, evaluation: Evaluation, groups: Groups) -> dict[str, float]:
    """An evaluation's numbers. The score's name holds the phase; all others have one name in every run.

    Scores of different phases are over different examples: one name for them would put them into one column. A mean has
    its standard error beside it as `<name>_stderr` and the number of its questions as `<name>_n`.
    """
    s, phase = entry.summary, SCORED_ON[entry.phase]
    named = {"score": f"{phase}.{metric}", **{end: f"{phase}.{metric}_{end}" for end in ("stderr", "low", "high")}}
    values: dict[str, float | None] = {named.get(name, name): value for name, value in s.as_metrics().items()}
    values |= {f"{phase}.{metric}_n": s.n - s.failures, f"{phase}.{metric}_estimate": entry.estimate}
    values[f"{phase}.{metric}_estimate_spread"] = entry.spread
    rows = evaluation.rows
    means = {name: _known(rows, partial(_measure, name)) for name in s.measures}
    means["context_tokens"] = _known(rows, lambda row: row.context_tokens)
    means["prompt_tokens_a_question"] = _known(rows, lambda row: row.prompt_tokens)
    if s.usd is not None:
        means["usd_a_question"] = _known(rows, lambda row: row.usd)
    guards = sorted({name for row in rows for name in row.also})
    means |= {f"{phase}.{name}": evaluation.also(name) for name in guards}
    for name, found in means.items():
        values |= _mean(name, found, groups)
    values |= {"judge_calls": evaluation.total("judge_calls"), "judge_tokens": evaluation.total("judge_tokens")}
    return finite(values)


def rung_metrics(
    entry: Entry, metric: str, evaluation: Evaluation, groups: Groups, whole: int
) -> Iterator[tuple[str, float, int]]:
    """The mean score after each step of the search and its standard error: name, value, questions asked so far.

    Args:
        entry: Of baseline or search; other phases ask all at once.
        metric: Its name.
        evaluation: Its rows, in the order in which they were asked.
        groups: Of dependent questions.
        whole: Search questions in all.
    """
    if SCORED_ON[entry.phase] != "search":
        return
    size = questions_a_step(whole)
    for count in range(size, len(evaluation.rows), size):
        part = Evaluation(evaluation.rows[:count])
        name = f"search.{metric}"
        values = dict(zip((name, f"{name}_stderr"), part.mean(groups), strict=True))
        yield from ((found, value, count) for found, value in finite(values).items())


def _measure(name: str, row: Row) -> float | None:
    return row.measures.get(name)


def _known(rows: tuple[Row, ...], value: Callable[[Row], float | None]) -> dict[str, float]:
    found = {row.example_id: value(row) for row in rows}
    return {example_id: float(one) for example_id, one in found.items() if one is not None}


def _mean(name: str, found: Mapping[str, float], groups: Groups) -> dict[str, float | None]:
    mean, stderr = mean_and_stderr(list(found.values()), [groups.get(i, i) for i in found])
    return {name: mean, f"{name}_stderr": stderr, f"{name}_n": len(found)}


def finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """Under names that MLflow takes, without what is not known: it draws no NaN."""
    return {metric_name(n): float(value) for n, value in values.items() if value is not None and math.isfinite(value)}


def compile_metrics(made: int, spent: Ledger) -> dict[str, float]:
    """What a turn of an optimizer made and took; costs have the names that they have in a trial."""
    return finite({"candidates": made, **asdict(spent.total)})


def compile_params(optimizer: str, made: list[Candidate], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The optimizer with its parameters, and the pipeline that it worked on, where that is known."""
    found = {"optimizer": optimizer, **(config or {})}
    for candidate in made[:1]:
        found |= {f"optimizer.{name}": str(value)[:_LONGEST_PARAM] for name, value in (candidate.params or {}).items()}
    return found


def study_params(study_yaml: str) -> dict[str, str]:
    """The study file's plain settings; of the budget, what the study was first given is not kept, since it may grow."""
    content = yaml.safe_load(study_yaml)
    plain = {name: value for name, value in content.items() if isinstance(value, str | int | float)}
    lm = content.get("lm")
    plain["lm"] = lm.get("model", "") if isinstance(lm, dict) else lm
    plain["metric"] = metric_title(content["metric"])
    plain["optimizers"] = ", ".join(content.get("optimizers") or [])
    # More budget, or a wish for more trials, continues the same study, and a param cannot change.
    return {name: str(value)[:_LONGEST_PARAM] for name, value in plain.items() if name not in ("trials", "dataset")}


def dataset_record(dataset: Dataset) -> DatasetEntity:
    """The data set as MLflow knows it: its fingerprint is the digest, its counts the profile."""
    from mlflow.entities import Dataset as DatasetEntity

    counts = {name: len(getattr(dataset, name)) for name in SPLITS}
    profile = {**counts, "documents": len(dataset.corpus.documents), "corpus": dataset.corpus.fingerprint}
    return DatasetEntity(
        name=dataset.name,
        digest=dataset.fingerprint,
        source_type="local",
        source=json.dumps({"uri": str(dataset.path.resolve())}),
        profile=json.dumps(profile),
    )


def outcome_metrics(outcome: Outcome) -> dict[str, float]:
    """The parent run's numbers, phase by phase."""
    values: dict[str, float | None] = {"trials": len(outcome.trials), "search.optimism": outcome.optimism}
    best = outcome.best_trial
    scored = {"search.baseline": outcome.baseline, "search.best": best, "confirm.score": outcome.winner}
    scored["confirm.baseline"] = outcome.finalists[0] if outcome.finalists else None
    scored |= {"test.baseline": outcome.test_baseline, "test.score": outcome.test_winner}
    for name, entry in scored.items():
        if entry is not None:
            s = entry.summary
            values |= {name: s.score, f"{name}_stderr": s.stderr, f"{name}_n": s.n - s.failures}
    if best is not None:
        values |= {"search.best_estimate": best.estimate, "search.best_estimate_spread": best.spread}
    if outcome.test_winner is not None:
        values["test.openings"] = outcome.test_openings
    if (d := outcome.difference) is not None:
        values |= {"test.difference": d.mean, "test.difference_low": d.low, "test.difference_high": d.high}
        values |= {"test.p_value": d.p_value, "test.n": d.n, "test.groups": d.clusters, "test.detectable": d.detectable}
    spent = outcome.spent
    values |= {"spent.calls": spent.calls, "spent.paid_calls": spent.paid_calls, "spent.seconds": spent.seconds}
    values |= {"spent.prompt_tokens": spent.prompt_tokens, "spent.completion_tokens": spent.completion_tokens}
    values |= {"spent.usd": spent.usd, "spent.lm_seconds": spent.lm_seconds}
    return finite(values)
