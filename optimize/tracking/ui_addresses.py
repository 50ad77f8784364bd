"""Where a study is in MLflow's pages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from optimize.tracking.records import metric_name
from optimize.tracking.store import PARENT_UNIT, PHASE, STUDY, UNIT
from optimize.tracking.ui_view import share_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Addresses = list[tuple[str, str]]
"""What there is to see, and where."""

MOST_COMPARED = 200
"""Trials that are compared on one page: they all stand in its address."""


@dataclass(frozen=True, slots=True)
class Study:
    """How a study is found in the store.

    Attributes:
        key: Its name and fingerprint.
        dataset: Name of its data set, which is that of its experiment.
        metric: The first objective.
    """

    key: str
    dataset: str
    metric: str


def experiments(root: str, client: MlflowClient) -> Addresses:
    """The experiments of ours, the one worked on last first.

    Args:
        root: What the addresses begin with.
        client: Of the store.
    """
    found = client.search_experiments(max_results=100, order_by=["last_update_time DESC"])
    ours = [(e.name, f"{root}/#/experiments/{e.experiment_id}/runs") for e in found if "ragwright" in e.tags]
    return ours or [("MLflow", root)]


def study_pages(root: str, client: MlflowClient, study: Study) -> Addresses | None:
    """The study's trials as a table, best first, as charts and compared, its traces, and the study itself.

    Returns:
        None where the store does not hold it.
    """
    experiment = client.get_experiment_by_name(study.dataset)
    runs = [] if experiment is None else _runs(client, experiment.experiment_id, study.key)
    if experiment is None or not runs:
        return None
    parent = next((run for run in runs if run.data.tags.get(UNIT) == PARENT_UNIT), runs[0])
    trials = [run for run in runs if run.data.tags.get(PHASE) == "search"]
    place = f"{root}/#/experiments/{experiment.experiment_id}"
    estimate = f"search.{metric_name(study.metric)}_estimate"
    view = share_view(client, experiment.experiment_id, study.key, estimate, trials)
    found = [
        ("trials, best first", f"{place}/runs?{urlencode(view)}"),
        ("trials as charts", f"{place}/runs?{urlencode({**view, 'compareRunsMode': 'CHART'})}"),
    ]
    if len(trials) > 1:
        ids = [run.info.run_id for run in trials[:MOST_COMPARED]]
        chosen = {"runs": _compact(ids), "experiments": _compact([experiment.experiment_id])}
        found.append(("trials compared", f"{root}/#/compare-runs?{urlencode(chosen)}"))
    return [*found, ("traces", f"{place}/traces"), ("the study", f"{place}/runs/{parent.info.run_id}")]


def _runs(client: MlflowClient, experiment: str, key: str) -> list[Run]:
    """The study's runs, the earliest first."""
    found: list[Run] = []
    page: str | None = None
    while page != "":
        some = client.search_runs(
            [experiment],
            f"tags.`{STUDY}` = '{key}'",
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=page,
        )
        found += some
        page = some.token or ""
    return found


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
