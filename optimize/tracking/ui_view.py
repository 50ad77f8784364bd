"""What MLflow's pages show of a study's trials when they open: which runs, in which order, which columns and charts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optimize.tracking.store import OUTCOME, PHASE, STUDY, troubles

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COST = "prompt_tokens_a_question"
"""The metric that trials are drawn against."""

_SECTION = "ragwright"
_MOST_DRAWN = 1000


def share_view(
    client: MlflowClient, experiment: str, study: str, estimate: str, trials: Sequence[Run]
) -> dict[str, str]:
    """Keep a view of a study's trials in its experiment, as MLflow's button "Share" does.

    Args:
        client: Of the store.
        experiment: Its id.
        study: The study's name and fingerprint.
        estimate: Name of the metric that says most of a trial.
        trials: The study's.

    Returns:
        What the page's address asks for: the view, or, where the store lets nobody write, the runs and their order.
    """
    filtered = f"tags.`{STUDY}` = '{study}' and tags.`{PHASE}` = 'search'"
    order = f"metrics.`{estimate}`"
    varied = _varied(trials)
    view = {
        "searchFilter": filtered,
        "orderByKey": order,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [order, "metrics.`n`", f"metrics.`{COST}`", *_params(varied), f"tags.`{OUTCOME}`"],
        "runsHiddenMode": "SHOW_ALL",
        **_charts(estimate, varied),
    }
    try:
        text = json.dumps(view, separators=(",", ":"))
        client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{study}", text)
    except troubles():
        return {"searchFilter": filtered, "orderByKey": order, "orderByAsc": "false"}
    return {"viewStateShareKey": study}


def _varied(trials: Sequence[Run]) -> list[str]:
    """Names of the params of which the trials have more than one value."""
    values: dict[str, set[str]] = {}
    for run in trials:
        for name, value in run.data.params.items():
            values.setdefault(name, set()).add(value)
    return [name for name, found in values.items() if len(found) > 1]


def _params(names: Sequence[str]) -> list[str]:
    return [f"params.`{name}`" for name in names]


def _charts(estimate: str, varied: Sequence[str]) -> dict[str, Any]:
    """All trials as parallel coordinates, and what quality costs."""
    both = {"metricSectionId": _SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": _MOST_DRAWN}
    parallel: dict[str, Any] = {
        "type": "PARALLEL",
        "selectedParams": varied,
        "selectedMetrics": [estimate],
        "showAllRuns": True,
    }
    scatter: dict[str, Any] = {"type": "SCATTER", "xaxis": _axis(COST), "yaxis": _axis(estimate)}
    section = {"uuid": _SECTION, "name": "The study", "display": True, "columns": 1, "cardHeight": 420}
    return {
        "compareRunSections": [{**section, "isReordered": False, "deleted": False, "isGenerated": False}],
        "compareRunCharts": [
            {**both, **chart, "uuid": f"{_SECTION}-{number}"} for number, chart in enumerate((parallel, scatter))
        ],
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}
