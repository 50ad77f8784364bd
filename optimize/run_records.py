"""What a study's runs hold in MLflow: params, metrics, tables and descriptions, as plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from optimize.dataset import SPLITS, Dataset
from optimize.evaluate import Evaluation, Row
from optimize.example import Example
from optimize.headline import believed, duration, headline, metric_title, money, number
from optimize.outcome import Entry, Outcome
from programs.corpus import Corpus

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

SCORED_ON = {"baseline": "search", "search": "search", "confirm": "confirm", "test": "test"}
"""Phase -> the examples of its scores."""

_LONGEST_PARAM = 500


def metric_name(name: str) -> str:
    """A name that MLflow takes: `nDCG@10` becomes `nDCG_10`."""
    return re.sub(r"[^\w./ -]", "_", name)


def entry_metrics(entry: Entry, metric: str) -> dict[str, float]:
    """An evaluation's numbers. The score's name holds the phase; all others have one name in every run.

    Scores of different phases are over different examples: one name for them would put them into one column.
    """
    values = entry.summary.as_metrics()
    belief = {"estimate": entry.estimate, "estimate_spread": entry.spread}
    values |= {name: value for name, value in belief.items() if value is not None and math.isfinite(value)}
    score = f"{SCORED_ON[entry.phase]}.{metric}"
    named = {"score": score, **{name: f"{score}_{name}" for name in ("stderr", "low", "high", *belief)}}
    return {metric_name(named.get(name, name)): value for name, value in values.items()}


def entry_outcome(entry: Entry) -> str:
    """What became of an evaluation, in a few words."""
    if not entry.summary.valid:
        return "invalid: too many failures"
    return "stopped early" if entry.phase == "search" and entry.note else entry.note or "scored"


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


def rows_table(evaluation: Evaluation, examples: Mapping[str, Example], corpus: Corpus) -> str:
    """The rows as a table in MLflow's own form, with the texts that a person needs to judge them."""
    rows = [_row_cells(row, examples[row.example_id], corpus) for row in evaluation.rows]
    columns = list(rows[0]) if rows else []
    return json.dumps({"columns": columns, "data": [list(row.values()) for row in rows]})


def _row_cells(row: Row, example: Example, corpus: Corpus) -> dict[str, Any]:
    passages = [f"[{s.doc_id} {s.start}-{s.end}] {corpus.document(s.doc_id).text[s.start : s.end]}" for s in row.spans]
    return {
        "example_id": row.example_id,
        "question": example.question,
        "gold": gold_text(example),
        "answer": row.answer,
        "score": row.score,
        "feedback": row.feedback,
        "error": row.error,
        "span_recall": row.measures.get("span_recall"),
        "passages": "\n\n".join(passages),
        "context_tokens": row.context_tokens,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "latency_s": row.latency_s,
    }


def gold_text(example: Example) -> str:
    """The acceptable answers on one line."""
    if example.answers is None:
        return "(not known)"
    return " | ".join(example.answers) or "(the corpus cannot answer)"


def messages_json(messages: list[dict[str, Any]]) -> str:
    """Rendered messages as an artifact."""
    return json.dumps(messages, ensure_ascii=True, indent=1)


def dataset_record(dataset: Dataset, context: str) -> DatasetInput:
    """The data set as a run's input: its fingerprint is the digest, its counts the profile.

    Args:
        dataset: Which one.
        context: What it was used for: a phase, or `study`.
    """
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    counts = {name: len(getattr(dataset, name)) for name in SPLITS}
    profile = {**counts, "documents": len(dataset.corpus.documents), "corpus": dataset.corpus.fingerprint}
    entity = DatasetEntity(
        name=dataset.name,
        digest=dataset.fingerprint,
        source_type="local",
        source=json.dumps({"uri": str(dataset.path.resolve())}),
        profile=json.dumps(profile),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def outcome_metrics(outcome: Outcome) -> dict[str, float]:
    """The parent run's numbers, phase by phase."""
    values: dict[str, float | None] = {"search.baseline": outcome.baseline.summary.score, "trials": len(outcome.trials)}
    if (best := outcome.best_trial) is not None:
        values |= {"search.best": best.summary.score, "search.best_estimate": best.estimate}
    values["search.optimism"] = outcome.optimism
    if outcome.finalists:
        values["confirm.baseline"] = outcome.finalists[0].summary.score
    if outcome.winner is not None:
        values["confirm.score"] = outcome.winner.summary.score
    if outcome.test_baseline is not None and outcome.test_winner is not None:
        values |= {
            "test.baseline": outcome.test_baseline.summary.score,
            "test.score": outcome.test_winner.summary.score,
        }
        values |= {"test.score_stderr": outcome.test_winner.summary.stderr, "test.openings": outcome.test_openings}
    if (d := outcome.difference) is not None:
        values |= {"test.difference": d.mean, "test.difference_low": d.low, "test.difference_high": d.high}
        values |= {"test.p_value": d.p_value, "test.n": d.n, "test.groups": d.clusters, "test.detectable": d.detectable}
    spent = outcome.spent
    values |= {"spent.calls": spent.calls, "spent.paid_calls": spent.paid_calls, "spent.seconds": spent.seconds}
    values |= {"spent.prompt_tokens": spent.prompt_tokens, "spent.completion_tokens": spent.completion_tokens}
    values["spent.usd"] = spent.usd
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def describe_outcome(outcome: Outcome) -> str:
    """The parent run's description: how the study ended, in Markdown."""
    spent = outcome.spent
    lines = [
        f"**{headline(outcome).sentence}**",
        "",
        f"{len(outcome.trials)} trials of `{outcome.program}` on `{outcome.dataset}`, answered by {outcome.lm}; "
        f"{spent.calls:,} LM calls ({spent.paid_calls:,} made), {money(spent.usd)}, {duration(spent.seconds)}.",
    ]
    if outcome.winner is not None:
        lines += ["", "| setting | baseline | winner |", "|---|---|---|"]
        base, new = outcome.baseline.params, outcome.winner.params
        lines += [f"| {name} | {base[name]} | {new[name]} |" for name in new if base[name] != new[name]]
    elif (best := outcome.best_trial) is not None:
        lines += [
            "",
            f"Best of the search: `{best.unit}`, estimate {believed(best)}, score {number(best.summary.score)}.",
        ]
    return "\n".join([*lines, "", *(f"- Warning: {warning}" for warning in outcome.warnings)])
