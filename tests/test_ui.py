"""Where `ragwright ui` finds a study, in a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optimize.tracking.store import PHASE, STUDY, UNIT, connect
from optimize.tracking.tracker import default_uri
from optimize.tracking.ui import serve_ui
from optimize.tracking.ui_addresses import Study, experiments, study_pages
from programs.errors import RagwrightError

TOWERS = Study("towers-0123456789ab", "it's handmade", "token_f1")
ROOT = "http://127.0.0.1:5000"


@pytest.fixture
def client(runs: Path) -> Any:
    """A store with a study of two trials, and another study."""
    client = connect(default_uri(runs))
    experiment = client.create_experiment(TOWERS.dataset, tags={"ragwright": "data set"})
    client.create_experiment("somebody else's")
    for key, unit, phase, top_k in (
        (TOWERS.key, "study", "study", None),
        (TOWERS.key, "trial-0000", "search", 1),
        (TOWERS.key, "trial-0001", "search", 2),
        (TOWERS.key, "test-x", "test", 2),
        ("other-ffffffffffff", "study", "study", None),
        ("other-ffffffffffff", "trial-0000", "search", 3),
    ):
        run = client.create_run(experiment, tags={STUDY: key, UNIT: unit, PHASE: phase}, run_name=f"{key}/{unit}")
        if top_k is not None:
            client.log_param(run.info.run_id, "top_k", top_k)
            client.log_param(run.info.run_id, "splitter", "recursive")
    return client


def ids(client: Any, *names: str) -> list[str]:
    [experiment] = [e.experiment_id for e in client.search_experiments() if e.name == TOWERS.dataset]
    found = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    return [found[f"{TOWERS.key}/{name}"] for name in names]


def test_a_study_has_its_pages(client: Any) -> None:
    pages = dict(study_pages(ROOT, client, TOWERS) or [])
    assert list(pages) == ["trials, best first", "trials as charts", "trials compared", "traces", "the study"]
    [study] = ids(client, "study")
    assert pages["the study"].startswith(f"{ROOT}/#/experiments/")
    assert pages["the study"].endswith(f"/runs/{study}")
    compared = [run in pages["trials compared"] for run in ids(client, "trial-0000", "trial-0001", "test-x", "study")]
    assert compared == [True, True, False, False]


def test_the_table_has_the_columns_that_differ(client: Any) -> None:
    [address, *_] = study_pages(ROOT, client, TOWERS) or []
    assert address[1].endswith(f"runs?viewStateShareKey={TOWERS.key}")
    tags = client.get_experiment_by_name(TOWERS.dataset).tags
    view = json.loads(tags[f"mlflow.sharedViewState.{TOWERS.key}"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`search.token_f1_estimate`", False)
    assert "params.`top_k`" in view["selectedColumns"]
    assert "params.`splitter`" not in view["selectedColumns"]
    assert TOWERS.key in view["searchFilter"]
    parallel, scatter = view["compareRunCharts"]
    assert (parallel["type"], parallel["selectedParams"]) == ("PARALLEL", ["top_k"])
    assert scatter["yaxis"]["key"] == "search.token_f1_estimate"


def test_a_store_that_lets_nobody_write_is_shown_without_columns(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    def refuse(*args: Any) -> None:
        raise MlflowException("read only")

    monkeypatch.setattr(client, "set_experiment_tag", refuse)
    [address, *_] = study_pages(ROOT, client, TOWERS) or []
    assert "orderByKey=metrics.%60search.token_f1_estimate%60" in address[1]


def test_an_unknown_study_is_none(client: Any) -> None:
    assert study_pages(ROOT, client, Study("none-000000000000", TOWERS.dataset, "token_f1")) is None
    assert study_pages(ROOT, client, Study(TOWERS.key, "no such data", "token_f1")) is None


def test_only_our_experiments_are_named(client: Any) -> None:
    assert [name for name, _ in experiments(ROOT, client)] == [TOWERS.dataset]


def test_a_password_in_the_address_is_not_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    uri = "http://somebody:canary-4711@127.0.0.1:9"
    serve_ui(tmp_path, 5999, uri)
    assert capsys.readouterr().out.split() == ["MLflow", "http://127.0.0.1:9"]
    with pytest.raises(RagwrightError) as problem:
        serve_ui(tmp_path, 5999, uri, TOWERS)
    assert "does not answer" in str(problem.value)
    assert "canary" not in str(problem.value)
