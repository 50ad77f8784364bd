from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimize.evaluate import Evaluation
from optimize.outcome import Entry
from optimize.run_records import metric_name, rows_table, study_params
from optimize.study_config import StudyConfig, dump_study
from optimize.tracking import Tracker, connect, default_uri
from optimize.ui import serve_ui
from programs.errors import RagwrightError
from tests.outcomes import NASTY, Studied

STUDY = dump_study(StudyConfig(name="towers", dataset="/data/handmade", lm={"model": "openai/x", "threads": 2}))
MESSAGES = [{"predictor": "generate", "messages": [{"role": "user", "content": "{{question}} \ud800 ✓"}]}]


@pytest.fixture
def studied(tmp_path: Path, migrated: Path) -> Studied:
    studied = Studied(tmp_path)
    shutil.copy(migrated, tmp_path / "runs" / "mlflow.db")
    return studied


class Store:
    """What a test asks of the store."""

    def __init__(self, studied: Studied) -> None:
        self.client = connect(default_uri(studied.run.path.parent))
        found = self.client.get_experiment_by_name("handmade")
        assert found is not None
        self.experiment = found

    def runs(self) -> dict[str, Any]:
        found = self.client.search_runs([self.experiment.experiment_id])
        units = {run.data.tags["ragwright.unit"]: run for run in found}
        assert len(units) == len(found), "a unit was logged twice"
        return units

    def artifact(self, run: Any, name: str) -> Any:
        path = Path(run.info.artifact_uri.removeprefix("file://")) / name
        return json.loads(path.read_text(encoding="utf-8")) if name.endswith("json") else path.read_text("utf-8")


def entries(studied: Studied) -> list[Entry]:
    o = studied.outcome
    assert o.test_baseline is not None
    assert o.test_winner is not None
    return [o.baseline, *o.trials, *o.finalists, o.test_baseline, o.test_winner]


def tracked(studied: Studied, warned: list[str] | None = None, uri: str | None = None) -> Tracker:
    o, warnings = studied.outcome, warned if warned is not None else []
    uri = uri or default_uri(studied.run.path.parent)
    return Tracker(uri, studied.dataset, o.study, o.fingerprint, studied.run.path, warnings.append)


def log_all(studied: Studied, tracker: Tracker) -> None:
    tracker.open(STUDY)
    for entry in entries(studied):
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)


def test_a_study_is_a_parent_with_a_child_for_every_evaluation(studied: Studied) -> None:
    warned: list[str] = []
    tracker = tracked(studied, warned)
    log_all(studied, tracker)
    report = studied.run.write_text("report.md", "# r")
    export = studied.run.export
    export.mkdir()
    (export / "manifest.json").write_text('{"format": 1}')
    tracker.close(studied.outcome, [report], export)
    store = Store(studied)
    runs = store.runs()
    parent = runs.pop("study")
    assert warned == []
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    assert set(runs) == {entry.unit for entry in entries(studied)}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert store.artifact(parent, "report.md") == "# r"
    assert store.artifact(parent, "export/manifest.json") == {"format": 1}
    assert Path(parent.info.artifact_uri.removeprefix("file://")).is_relative_to(studied.run.path.parent)


def test_scores_of_different_phases_never_share_a_name(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    runs = Store(studied).runs()
    scores = {unit: {n for n in run.data.metrics if "token_f1" in n} for unit, run in runs.items() if unit != "study"}
    ends, belief = ("", "_stderr", "_low", "_high"), ("_estimate", "_estimate_spread")
    assert scores["baseline"] == scores["trial-0000"] == {f"search.token_f1{end}" for end in (*ends, *belief)}
    assert scores["confirm-new"] == {f"confirm.token_f1{end}" for end in ends}
    assert scores["test-new"] == {f"test.token_f1{end}" for end in ends}
    assert "score" not in runs["test-new"].data.metrics
    others = {frozenset(set(runs[unit].data.metrics) - names) for unit, names in scores.items()}
    assert len(others) == 1
    assert {"nDCG_10", "n", "failures", "context_tokens", "latency_p95", "usd"} <= next(iter(others))
    assert len({frozenset(runs[unit].data.params) for unit in scores}) == 1
    trial = runs["trial-0001"]
    assert trial.data.params["chunk_size"] == "64"
    assert trial.data.params["candidate"] == "labeled_fewshot-89abcdef"
    assert trial.data.metrics["search.token_f1"] == pytest.approx(11 / 12)
    assert trial.data.tags["ragwright.phase"] == "search"
    assert trial.data.tags["ragwright.outcome"] == "scored"


def test_a_trial_that_was_asked_less_has_stopped_early(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    trial = Store(studied).runs()["trial-0002"]
    assert trial.data.tags["ragwright.outcome"] == "stopped early"
    assert (trial.data.metrics["n"], trial.data.metrics["search.token_f1_estimate"]) == (6, 0.3)


def test_a_trial_that_went_on_is_logged_anew(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    before = Store(studied).runs()["trial-0002"]
    rows = Evaluation(studied.evaluations["trial-0000"].rows)
    longer = replace(studied.outcome.trials[2], summary=studied.outcome.trials[0].summary, note="", estimate=0.5)
    warned: list[str] = []
    again = tracked(studied, warned)
    again.open(STUDY)
    again.entry(longer, rows, lambda: MESSAGES)
    store = Store(studied)
    after = store.runs()["trial-0002"]
    assert warned == []
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert (after.data.metrics["n"], after.data.metrics["search.token_f1_estimate"]) == (12, 0.5)
    assert after.data.tags["ragwright.outcome"] == "scored"
    assert len(store.artifact(after, "rows.json")["data"]) == 12


def test_questions_without_known_answers_have_rows(studied: Studied) -> None:
    corpus, examples = studied.dataset.corpus, studied.dataset.test
    unknown = {example.id: replace(example, answers=None) for example in examples}
    rows = Evaluation(tuple(replace(row, feedback="too long") for row in studied.evaluations["test-new"].rows))
    table = json.loads(rows_table(rows, unknown, corpus))
    cells = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (cells["gold"], cells["feedback"]) == ("(not known)", "too long")


def test_a_weighted_metric_is_a_param(studied: Studied) -> None:
    weighted = StudyConfig(name="towers", dataset="/data/handmade", metric={"token_f1": 0.5, "chrf": 0.5})
    assert study_params(dump_study(weighted))["metric"] == "0.5 token_f1 + 0.5 chrf"


def test_the_rows_and_the_messages_can_be_read(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow's own reader of tables knows one store only.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(studied.run.path.parent))
    log_all(studied, tracked(studied))
    store = Store(studied)
    run = store.runs()["test-new"]
    table = store.client.load_table(store.experiment.experiment_id, "rows.json", [run.info.run_id])
    row = table.iloc[4]
    assert len(table) == 12
    assert (row["question"], str(row["gold"]), row["score"]) == (NASTY, "1804", 1.0)
    assert row["passages"] == "[test-4.md 0-34] The tower test 4 was built in 1804"
    assert row["span_recall"] == 1.0
    assert store.artifact(run, "messages.json") == MESSAGES


def test_the_data_set_is_an_input_of_every_run(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    for run in Store(studied).runs().values():
        [found] = run.inputs.dataset_inputs
        assert found.dataset.digest == studied.dataset.fingerprint
        assert json.loads(found.dataset.profile)["test"] == 12


def test_the_result_stands_on_the_parent(studied: Studied) -> None:
    tracker = tracked(studied)
    tracker.open(STUDY)
    tracker.close(studied.outcome, [])
    parent = Store(studied).runs()["study"]
    d = studied.outcome.difference
    assert d is not None
    metrics = parent.data.metrics
    assert metrics["test.score"] == pytest.approx(10 / 12)
    assert (metrics["test.difference"], metrics["test.difference_low"]) == pytest.approx((d.mean, d.low))
    assert metrics["spent.calls"] == 120
    assert parent.data.tags["ragwright.verdict"] == "better"
    assert parent.data.tags["ragwright.winner"].endswith("/labeled_fewshot-89abcdef")
    assert "Better: the winner scores 0.833" in parent.data.tags["mlflow.note.content"]
    assert "| chunk_size | 256 | 64 |" in parent.data.tags["mlflow.note.content"]
    assert parent.data.params["lm"] == "openai/x"
    assert "dataset" not in parent.data.params


def test_a_second_process_logs_nothing_twice(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    before = Store(studied).runs()
    again = tracked(studied)
    log_all(studied, again)
    again.close(studied.outcome, [])
    after = Store(studied).runs()
    assert {unit: run.info.run_id for unit, run in before.items()} == {u: r.info.run_id for u, r in after.items()}
    assert after["study"].info.status == "FINISHED"


def test_more_budget_continues_the_same_parent(studied: Studied) -> None:
    first = tracked(studied)
    first.open(STUDY)
    first.close(studied.begun, [])
    warned: list[str] = []
    second = tracked(studied, warned)
    second.open(STUDY.replace("lm_calls: 600", "lm_calls: 900").replace("trials: null", "trials: 9"))
    assert Store(studied).runs()["study"].info.status == "RUNNING"
    second.close(studied.outcome, [])
    assert warned == []
    assert Store(studied).runs()["study"].data.tags["ragwright.verdict"] == "better"


def test_a_run_that_a_kill_left_open_is_completed(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    tracker = tracked(studied)
    tracker.open(STUDY)
    entry = studied.outcome.trials[1]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow.MlflowClient, "set_terminated", killed)
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    left = Store(studied).runs()[entry.unit]
    assert left.info.status == "RUNNING"
    log_all(studied, tracked(studied))
    done = Store(studied).runs()[entry.unit]
    assert (done.info.run_id, done.info.status) == (left.info.run_id, "FINISHED")
    assert len(Store(studied).client.get_metric_history(done.info.run_id, "search.token_f1")) == 1


def test_an_interrupted_study_is_no_longer_running(studied: Studied) -> None:
    tracker = tracked(studied)
    tracker.open(STUDY)
    tracker.interrupted()
    assert Store(studied).runs()["study"].info.status == "KILLED"
    tracked(studied).open(STUDY)
    assert Store(studied).runs()["study"].info.status == "RUNNING"


def test_a_store_that_fails_half_way_costs_no_trial(studied: Studied) -> None:
    warned: list[str] = []
    tracker = tracked(studied, warned)
    tracker.open(STUDY)
    with sqlite3.connect(studied.run.path.parent / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
    for entry in entries(studied):
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    tracker.close(studied.outcome, [])
    tracker.interrupted()
    assert len(warned) == 1
    assert "the study goes on without it" in warned[0]
    with sqlite3.connect(studied.run.path.parent / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO metrics")
    log_all(studied, tracked(studied))
    runs = Store(studied).runs()
    assert set(runs) == {"study", *(entry.unit for entry in entries(studied))}
    assert all("n" in run.data.metrics for unit, run in runs.items() if unit != "study")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db", "nonsense://x"])
def test_a_store_out_of_reach_is_told_once(studied: Studied, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warned: list[str] = []
    tracker = tracked(studied, warned, uri)
    log_all(studied, tracker)
    tracker.close(studied.outcome, [])
    assert len(warned) == 1
    assert uri in warned[0]


def test_metric_names_hold_what_mlflow_takes() -> None:
    assert metric_name("nDCG@10") == "nDCG_10"
    assert metric_name("search.my_module:score") == "search.my_module_score"


def test_nothing_is_printed(studied: Studied, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = tracked(studied)
    log_all(studied, tracker)
    tracker.close(studied.outcome, [])
    assert capfd.readouterr() == ("", "")


def test_there_is_nothing_to_show_before_a_study(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match="nothing has been logged"):
        serve_ui(tmp_path, 5999)


def test_a_server_is_only_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve_ui(tmp_path, 5999, "https://mlflow.example")
    assert "https://mlflow.example" in capsys.readouterr().out


def test_a_taken_port_is_said(studied: Studied) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RagwrightError, match=f"port {port} is taken"):
            serve_ui(studied.run.path.parent, port)
