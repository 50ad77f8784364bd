from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimize.compiling.candidate import BARE, Candidate, Demo, PredictorPrompt
from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.ledger import Ledger, Spending
from optimize.evaluation.outcome import Entry, summarize
from optimize.settings.study import StudyConfig, dump_study
from optimize.tracking.records import metric_name, study_params
from optimize.tracking.rows import rows_table
from optimize.tracking.store import connect
from optimize.tracking.tracker import Tracker, default_uri
from optimize.tracking.ui import serve_ui
from programs.addresses import cleaned, public_uri
from programs.config import PipelineConfig
from programs.errors import RagwrightError
from tests.outcomes import NASTY, Studied

STUDY = dump_study(StudyConfig(name="towers", dataset="/data/handmade", lm={"model": "openai/x", "threads": 2}))
MESSAGES = [{"predictor": "generate", "messages": [{"role": "user", "content": "{{question}} \ud800 ✓"}]}]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is registered; how has tests of its own."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("optimize.exporting.registry.register", lambda *given: calls.append(given))
    return calls


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces take most of the time, and have tests of their own."""
    monkeypatch.setattr("optimize.tracking.writing.log_traces", lambda *given: None)


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
    tracker.drain(20)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Studied:
    """A study that was logged whole; tests read it only."""
    studied = Studied(tmp_path_factory.mktemp("logged"))
    shutil.copy(migrated, studied.run.path.parent / "mlflow.db")
    log_all(studied, tracked(studied))
    return studied


def test_a_study_is_a_parent_with_a_child_for_every_evaluation(
    studied: Studied, registered: list[tuple[Any, ...]]
) -> None:
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
    [(client, uri, run_id, folder, outcome)] = registered
    assert client.get_run(run_id).info.status == "FINISHED"
    assert (uri, run_id) == (default_uri(studied.run.path.parent), parent.info.run_id)
    assert (folder, outcome) == (export, studied.outcome)
    assert store.artifact(parent, "report.md") == "# r"
    assert store.artifact(parent, "export/manifest.json") == {"format": 1}
    assert Path(parent.info.artifact_uri.removeprefix("file://")).is_relative_to(studied.run.path.parent)


def test_scores_of_different_phases_never_share_a_name(logged: Studied) -> None:
    runs = Store(logged).runs()
    scores = {unit: {n for n in run.data.metrics if "token_f1" in n} for unit, run in runs.items() if unit != "study"}
    ends, belief = ("", "_stderr", "_n", "_low", "_high"), ("_estimate", "_estimate_spread")
    assert scores["baseline"] == scores["trial-0000"] == {f"search.token_f1{end}" for end in (*ends, *belief)}
    assert scores["confirm-new"] == {f"confirm.token_f1{end}" for end in ends}
    assert scores["test-new"] == {f"test.token_f1{end}" for end in ends}
    assert "score" not in runs["test-new"].data.metrics
    others = {frozenset(set(runs[unit].data.metrics) - names) for unit, names in scores.items()}
    assert len(others) == 1
    same = {"nDCG_10", "nDCG_10_stderr", "nDCG_10_n", "n", "failures", "latency_p50", "latency_p95", "usd"}
    same |= {"prompt_tokens", "completion_tokens", "context_tokens", "context_tokens_stderr", "context_tokens_n"}
    same |= {"prompt_tokens_a_question", "prompt_tokens_a_question_stderr", "usd_a_question", "usd_a_question_n"}
    assert same <= next(iter(others))
    assert len({frozenset(runs[unit].data.params) for unit in scores}) == 1
    trial = runs["trial-0001"]
    assert trial.data.params["chunk_size"] == "64"
    assert trial.data.params["candidate"] == "labeled_fewshot-89abcdef"
    assert trial.data.metrics["search.token_f1"] == pytest.approx(11 / 12)
    assert trial.data.tags["ragwright.phase"] == "search"
    assert trial.data.params["optimizer"] == "labeled_fewshot"
    assert trial.data.tags["ragwright.outcome"] == "complete"


def test_a_trial_that_was_asked_less_has_stopped_early(logged: Studied) -> None:
    trial = Store(logged).runs()["trial-0002"]
    assert trial.data.tags["ragwright.outcome"] == "stopped early"
    assert (trial.data.metrics["n"], trial.data.metrics["search.token_f1_estimate"]) == (6, 0.3)


def test_a_trial_that_went_on_is_logged_anew(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    before = Store(studied).runs()["trial-0002"]
    rows = Evaluation(studied.evaluations["trial-0002"].rows + studied.evaluations["trial-0000"].rows[6:])
    summary = summarize(rows, {row.example_id: row.example_id for row in rows.rows})
    longer = replace(studied.outcome.trials[2], summary=summary, note="", estimate=0.5)
    warned: list[str] = []
    again = tracked(studied, warned)
    again.open(STUDY)
    again.entry(longer, rows, lambda: MESSAGES)
    again.drain(20)
    store = Store(studied)
    after = store.runs()["trial-0002"]
    assert warned == []
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert (after.data.metrics["n"], after.data.metrics["search.token_f1_estimate"]) == (12, 0.5)
    assert after.data.tags["ragwright.outcome"] == "complete"
    assert len(store.artifact(after, "rows.json")["data"]) == 12
    points = store.client.get_metric_history(after.info.run_id, "search.token_f1")
    steps = {(point.step, round(point.value, 3)) for point in points}
    assert sorted(steps) == [(4, 0.25), (6, 0.167), (8, 0.125), (12, 0.083)]


def test_the_steps_of_a_trial_are_steps_of_its_score(logged: Studied) -> None:
    store = Store(logged)
    runs = store.runs()

    def curve(unit: str, name: str) -> list[tuple[int, float]]:
        points = store.client.get_metric_history(runs[unit].info.run_id, name)
        return sorted((point.step, round(point.value, 3)) for point in points)

    # The first four of the baseline's twelve answers are right.
    assert curve("baseline", "search.token_f1") == [(4, 1.0), (8, 0.5), (12, 0.333)]
    assert [step for step, _ in curve("baseline", "search.token_f1_stderr")] == [4, 8, 12]
    assert curve("trial-0002", "search.token_f1") == [(4, 0.25), (6, 0.167)]
    assert [step for step, _ in curve("test-new", "test.token_f1")] == [12]
    assert runs["baseline"].data.metrics["search.token_f1"] == pytest.approx(1 / 3)


def test_the_winner_is_known_at_the_end_and_may_change(studied: Studied) -> None:
    def winners() -> set[str]:
        return {u for u, run in Store(studied).runs().items() if run.data.tags["ragwright.outcome"] == "winner"}

    tracker = tracked(studied)
    log_all(studied, tracker)
    assert winners() == set()
    tracker.close(studied.outcome, [])
    assert winners() == {"trial-0001", "confirm-new", "test-new"}
    o = studied.outcome
    other = replace(o.finalists[1], config=o.trials[0].config, candidate=o.trials[0].candidate)
    again = tracked(studied)
    log_all(studied, again)
    again.close(replace(studied.confirmed, winner=other, trials=o.trials), [])
    assert winners() == {"trial-0000"}
    assert Store(studied).runs()["trial-0001"].data.tags["ragwright.outcome"] == "complete"


def test_a_trial_that_fails_too_often_is_tagged_and_described(studied: Studied) -> None:
    rows = list(studied.evaluations["trial-0000"].rows)
    rows[:3] = [replace(row, score=None, answer=None, error="LMError: no reply") for row in rows[:3]]
    trial = studied.outcome.trials[0]
    failed = Evaluation(tuple(rows))
    tracker = tracked(studied)
    tracker.open(STUDY)
    tracker.entry(studied.outcome.baseline, studied.evaluations["baseline"], lambda: MESSAGES)
    summary = summarize(failed, {row.example_id: row.example_id for row in rows})
    tracker.entry(replace(trial, summary=summary), failed, lambda: MESSAGES)
    tracker.drain(20)
    store = Store(studied)
    run = store.runs()["trial-0000"]
    assert run.data.tags["ragwright.outcome"] == "failed"
    note = run.data.tags["mlflow.note.content"]
    assert "3 of 12 answers are failures" in note and "LMError: no reply" in note
    assert "| top_k | 3 | 1 |" in note
    table = store.artifact(run, "rows.json")
    lost = table["columns"].index("lost_at")
    assert [row[lost] for row in table["data"]][:4] == ["failed", "failed", "failed", ""]


def test_what_is_believed_later_is_logged_without_the_texts(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    trial, rendered = studied.outcome.trials[1], list[int]()

    def messages() -> list[dict[str, Any]]:
        rendered.append(1)
        return MESSAGES

    again = tracked(studied)
    again.open(STUDY)
    again.entry(trial, studied.evaluations[trial.unit], messages)
    again.entry(replace(trial, estimate=0.77), studied.evaluations[trial.unit], messages)
    again.drain(20)
    metrics = Store(studied).runs()[trial.unit].data.metrics
    assert metrics["search.token_f1_estimate"] == 0.77
    assert rendered == []


def test_every_turn_of_an_optimizer_has_a_run(studied: Studied) -> None:
    prompt = PredictorPrompt("Answer shortly.", (Demo("train-0", {"answer": "1800"}),))
    made = Candidate({"generate": prompt}, "bootstrap_fewshot", {"demos": 2}, (BARE,))
    spent = Ledger({"task": Spending(10, 8, 400, 30, 0.01), "reflection": Spending(2, 2, 90, 60, 0.02)})
    studied.run.save_candidates("00-bootstrap_fewshot", [made], spent, "", PipelineConfig())
    tracker = tracked(studied)
    log_all(studied, tracker)
    studied.run.save_candidates("01-gepa", [], Ledger(), "gepa: every call failed", PipelineConfig())
    tracker.close(studied.outcome, [])
    store = Store(studied)
    runs = store.runs()
    run = runs["compile-00-bootstrap_fewshot"]
    assert run.data.tags["ragwright.phase"] == "compile"
    assert run.data.tags["ragwright.outcome"] == "complete"
    assert run.data.tags["mlflow.parentRunId"] == runs["study"].info.run_id
    pipeline = {name: str(value) for name, value in PipelineConfig().as_params().items()}
    assert run.data.params == {"optimizer": "bootstrap_fewshot", "optimizer.demos": "2", **pipeline}
    assert (run.data.metrics["calls"], run.data.metrics["usd"], run.data.metrics["candidates"]) == (12, 0.03, 1)
    assert made.id in run.data.tags["mlflow.note.content"]
    prompts = store.artifact(run, "prompts.md")
    assert "Answer shortly." in prompts and "When was the tower train 0 built? -> answer: 1800" in prompts
    failed = runs["compile-01-gepa"]
    assert failed.data.tags["ragwright.outcome"] == "failed"
    assert "every call failed" in failed.data.tags["mlflow.note.content"]


def test_a_deleted_experiment_is_brought_back(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    store = Store(studied)
    store.client.delete_experiment(store.experiment.experiment_id)
    warned: list[str] = []
    log_all(studied, tracked(studied, warned))
    assert warned == []
    assert Store(studied).experiment.lifecycle_stage == "active"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:////tmp/runs/mlflow.db", "sqlite:////tmp/runs/mlflow.db"),
        ("https://mlflow.example/prefix", "https://mlflow.example/prefix"),
        ("postgresql+psycopg2://me:p%40ss@db:5432/mlflow?sslmode=require", "postgresql+psycopg2://db:5432/mlflow"),
        ("https://user:key@mlflow.example:443/?api_key=key#key", "https://mlflow.example:443/"),
        ("databricks", "databricks"),
    ],
)
def test_a_tracking_uri_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_errors_lose_the_secrets_of_the_uri() -> None:
    uri = "postgresql://me:p%40ssword@db/mlflow"
    said = cleaned(f"could not open {uri}: password 'p@ssword' of 'me' refused, see http://x:y@z/?q=1.", uri)
    assert said == "could not open postgresql://db/mlflow: password '***' of 'me' refused, see http://z/"


def test_questions_without_known_answers_have_rows(studied: Studied) -> None:
    corpus, examples = studied.dataset.corpus, studied.dataset.test
    unknown = {example.id: replace(example, answers=None) for example in examples}
    rows = Evaluation(tuple(replace(row, feedback="too long") for row in studied.evaluations["test-new"].rows))
    table = json.loads(rows_table(rows, unknown, corpus))
    cells = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (cells["answer"], cells["feedback"]) == ("(not known)", "too long")


def test_a_weighted_metric_is_a_param(studied: Studied) -> None:
    weighted = StudyConfig(name="towers", dataset="/data/handmade", metric={"token_f1": 0.5, "chrf": 0.5})
    assert study_params(dump_study(weighted))["metric"] == "0.5 token_f1 + 0.5 chrf"


def test_the_rows_and_the_messages_can_be_read(logged: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow's own reader of tables knows one store only.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(logged.run.path.parent))
    store = Store(logged)
    run = store.runs()["test-new"]
    table = store.client.load_table(store.experiment.experiment_id, "rows.json", [run.info.run_id])
    row = table.iloc[4]
    assert len(table) == 12
    assert (row["question"], str(row["answer"]), str(row["prediction"]), row["score"]) == (NASTY, "1804", "1804", 1.0)
    assert row["passages"] == "[test-4.md 0-34] The tower test 4 was built in 1804"
    assert row["span_recall"] == 1.0
    assert store.artifact(run, "messages.json") == MESSAGES


def test_the_data_set_is_an_input_of_every_run(logged: Studied) -> None:
    for run in Store(logged).runs().values():
        [found] = run.inputs.dataset_inputs
        assert found.dataset.digest == logged.dataset.fingerprint
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
    assert (metrics["test.score_n"], metrics["test.baseline_n"]) == (12, 12)
    assert metrics["test.score_stderr"] > 0 and metrics["search.best_stderr"] > 0
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
    second.drain(20)
    assert Store(studied).runs()["study"].info.status == "RUNNING"
    second.close(studied.outcome, [])
    assert warned == []
    assert Store(studied).runs()["study"].data.tags["ragwright.verdict"] == "better"


def test_a_run_that_a_kill_left_open_is_completed(studied: Studied) -> None:
    log_all(studied, tracked(studied))
    store, unit = Store(studied), "trial-0001"
    left = store.runs()[unit]
    # Logged but for its last steps.
    store.client.delete_tag(left.info.run_id, "ragwright.logged")
    store.client.update_run(left.info.run_id, status="RUNNING")
    again = tracked(studied)
    log_all(studied, again)
    again.close(studied.outcome, [])
    done = Store(studied).runs()[unit]
    assert (done.info.run_id, done.info.status) == (left.info.run_id, "FINISHED")
    points = store.client.get_metric_history(done.info.run_id, "search.token_f1")
    assert {(point.step, point.value) for point in points if point.step == 12} == {(12, 11 / 12)}


def test_an_interrupted_study_is_no_longer_running(studied: Studied) -> None:
    tracker = tracked(studied)
    tracker.open(STUDY)
    tracker.interrupted()
    assert Store(studied).runs()["study"].info.status == "KILLED"
    again = tracked(studied)
    again.open(STUDY)
    again.drain(20)
    assert Store(studied).runs()["study"].info.status == "RUNNING"


def test_what_a_working_store_refuses_is_logged_by_the_same_command(studied: Studied) -> None:
    warned: list[str] = []
    tracker = tracked(studied, warned)
    tracker.open(STUDY)
    tracker.drain(20)
    with sqlite3.connect(studied.run.path.parent / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
    for entry in entries(studied):
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    tracker.close(studied.outcome, [])
    assert len(warned) == 1
    assert "refused baseline" in warned[0] and "the study goes on" in warned[0]
    with sqlite3.connect(studied.run.path.parent / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO metrics")
    log_all(studied, tracked(studied))
    runs = Store(studied).runs()
    assert set(runs) == {"study", *(entry.unit for entry in entries(studied))}
    assert all("n" in run.data.metrics for unit, run in runs.items() if unit != "study")


def test_a_store_that_comes_back_gets_everything(studied: Studied, migrated: Path) -> None:
    database = studied.run.path.parent / "mlflow.db"
    database.unlink()
    # A folder in the database's place: nothing can be written, as on a server that is down.
    database.mkdir()
    warned: list[str] = []
    tracker = tracked(studied, warned)
    tracker.open(STUDY)
    for entry in entries(studied)[:4]:
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    assert tracker.drain(20) == 5
    assert len(warned) == 1 and "logged as soon as it answers" in warned[0]
    database.rmdir()
    shutil.copy(migrated, database)
    for entry in entries(studied)[4:]:
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    tracker.close(studied.outcome, [])
    runs = Store(studied).runs()
    assert len(warned) == 1
    assert set(runs) == {"study", *(entry.unit for entry in entries(studied))}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db", "nonsense://x"])
def test_a_store_out_of_reach_costs_no_trial(studied: Studied, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warned: list[str] = []
    tracker = tracked(studied, warned, uri)
    log_all(studied, tracker)
    tracker.close(studied.outcome, [])
    assert [uri in text for text in warned] == [True, True]
    assert "the study goes on without it" in warned[0]
    assert "lacks 10" in warned[1] and "the same command logs them" in warned[1]
    log_all(studied, tracked(studied))
    assert set(Store(studied).runs()) == {"study", *(entry.unit for entry in entries(studied))}


def test_a_server_that_never_answers_holds_nothing_up(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimize.tracking.tracker.PATIENCE_S", 0.3)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        warned: list[str] = []
        tracker = tracked(studied, warned, f"http://user:secret@127.0.0.1:{mute.getsockname()[1]}/?token=secret")
        tracker.open(STUDY)
        begun = time.perf_counter()
        for number in range(3000):
            trial = replace(studied.outcome.trials[0], unit=f"trial-{number % 20:04}")
            tracker.entry(trial, studied.evaluations["trial-0000"], lambda: MESSAGES)
        tracker.close(studied.outcome, [])
        assert time.perf_counter() - begun < 2
        # One thing to log for each trial, however often it was told of, and one each for beginning and end.
        assert len(warned) == 1 and "lacks 22" in warned[0]
        assert tracker.times.longest_s < 0.15
        assert "secret" not in str(warned) + tracker.uri


def test_a_defect_in_the_thread_is_not_lost(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    import optimize.tracking.writing as writing

    def broken(entry: Entry, *given: Any) -> str:
        return [][0] if entry.unit == "baseline" else describe_entry(entry, *given)

    describe_entry = writing.describe_entry
    monkeypatch.setattr(writing, "describe_entry", broken)
    tracker = tracked(studied)
    log_all(studied, tracker)
    with pytest.raises(IndexError):
        tracker.close(studied.outcome, [])
    runs = Store(studied).runs()
    assert runs["study"].info.status == "FINISHED"
    assert runs["test-new"].info.status == "FINISHED"


def test_a_prompt_that_cannot_be_rendered_costs_the_prompt_only(studied: Studied) -> None:
    def broken() -> list[dict[str, Any]]:
        raise KeyError("no such predictor")

    warned: list[str] = []
    tracker = tracked(studied, warned)
    tracker.open(STUDY)
    tracker.entry(studied.outcome.baseline, studied.evaluations["baseline"], broken)
    tracker.drain(20)
    run = Store(studied).runs()["baseline"]
    assert warned == [
        "baseline is logged without its prompt, which could not be rendered: KeyError: 'no such predictor'"
    ]
    assert (run.info.status, run.data.metrics["n"]) == ("FINISHED", 12)


def test_the_search_waits_for_nothing_and_both_times_are_known(studied: Studied) -> None:
    tracker = tracked(studied)
    tracker.open(STUDY)
    for entry in entries(studied):
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: time.sleep(0.05) or MESSAGES)
    tracker.close(studied.outcome, [])
    times, parent = tracker.times, Store(studied).runs()["study"]
    assert times.entries == 8
    assert times.longest_s < 0.15 and times.blocked_s < 0.15
    assert times.behind_s > 8 * 0.05
    assert 0 < parent.data.metrics["logging.behind_seconds"] <= times.behind_s
    assert parent.data.metrics["logging.blocked_seconds"] == times.blocked_s
    assert "behind the search" in parent.data.tags["mlflow.note.content"]


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
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RagwrightError, match=f"port {port} is taken"):
            serve_ui(studied.run.path.parent, port)
