from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from optimize.tracking.store import connect
from optimize.tracking.tracker import Tracker
from tests.outcomes import Studied
from tests.postgres_server import binaries, free_port, mlflow_server, postgres
from tests.test_tracking import MESSAGES, STUDY, entries, registered

PASSWORD = "canary-1f0c7d9e"

__all__ = ["registered"]

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(600),
    pytest.mark.skipif(binaries() is None, reason="no PostgreSQL here: apt-get install postgresql"),
]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    programs = binaries()
    assert programs is not None
    with postgres(programs, PASSWORD) as uri:
        yield uri


def track(studied: Studied, uri: str, warned: list[str]) -> Tracker:
    o = studied.outcome
    return Tracker(uri, studied.dataset, o.study, o.fingerprint, studied.run.path, warned.append)


def test_a_server_on_postgresql_holds_everything(database: str, tmp_path: Path) -> None:
    studied, warned, port = Studied(tmp_path), list[str](), free_port()
    artifacts = tmp_path / "server" / "artifacts"
    export = studied.run.export
    export.mkdir()
    (export / "manifest.json").write_text('{"format": 1}')
    with mlflow_server(database, artifacts, port) as uri:
        tracker = track(studied, uri, warned)
        tracker.open(STUDY)
        for entry in entries(studied)[:4]:
            tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
        assert tracker.drain() == 0
    # The server is away for a while.
    for entry in entries(studied)[4:]:
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    assert tracker.drain() == 4
    assert len(warned) == 1 and "logged as soon as it answers" in warned[0]
    with mlflow_server(database, artifacts, port) as uri:
        tracker.close(studied.outcome, [studied.run.write_text("report.md", "# r")], export)
        assert len(warned) == 1
        again = track(studied, uri, warned)
        again.open(STUDY)
        for entry in entries(studied):
            again.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
        again.close(studied.outcome, [])
        assert len(warned) == 1

        client = connect(uri)
        experiment = client.get_experiment_by_name("handmade")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        runs = {run.data.tags["ragwright.unit"]: run for run in found}
        assert len(runs) == len(found) == 9
        assert {run.info.status for run in found} == {"FINISHED"}
        winner = runs["test-new"]
        assert winner.data.tags["ragwright.outcome"] == "winner"
        assert winner.data.metrics["test.token_f1"] == pytest.approx(10 / 12)
        points = client.get_metric_history(runs["baseline"].info.run_id, "search.token_f1")
        assert sorted({point.step for point in points}) == [4, 8, 12]
        [used] = winner.inputs.dataset_inputs
        assert used.dataset.digest == studied.dataset.fingerprint
        assert {file.path for file in client.list_artifacts(winner.info.run_id)} == {"messages.json", "rows.json"}
        table = Path(client.download_artifacts(winner.info.run_id, "rows.json", str(tmp_path)))
        assert len(json.loads(table.read_text(encoding="utf-8"))["data"]) == 12
        names = {file.path for file in client.list_artifacts(runs["study"].info.run_id)}
        assert {"study.yaml", "report.md", "export"} <= names
        traces = client.search_traces(
            locations=[experiment.experiment_id], run_id=winner.info.run_id, max_results=50, include_spans=True
        )
        assert len(traces) == 12
        assert {span.span_type for span in traces[0].data.spans} == {"CHAIN", "RETRIEVER", "CHAT_MODEL"}
        assert {one.name for one in traces[0].info.assessments} >= {"token_f1", "expected_response"}
        assert json.loads(traces[0].info.trace_metadata["mlflow.trace.tokenUsage"])["total_tokens"] == 43
        [search] = [span for span in traces[0].data.spans if span.span_type == "RETRIEVER"]
        assert search.outputs[0]["metadata"]["doc_uri"].startswith("test-")
    log = (artifacts.with_name(f"server-{port}.log")).read_text(encoding="utf-8")
    assert "Traceback" not in log


def test_the_database_itself_and_no_password_anywhere(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    studied, warned = Studied(tmp_path), list[str]()
    # Another experiment than the server's, whose artifacts this process could not reach.
    object.__setattr__(studied.dataset, "name", "direct")
    tracker = track(studied, database, warned)
    tracker.open(STUDY)
    for entry in entries(studied):
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    tracker.close(studied.outcome, [])
    assert warned == []
    wrong = track(studied, database.replace(PASSWORD, f"{PASSWORD}-wrong"), warned)
    wrong.open(STUDY)
    wrong.close(studied.outcome, [])
    assert len(warned) == 2
    assert (studied.run.path.parent / "mlartifacts").is_dir()
    programs = binaries()
    assert programs is not None
    plain = database.replace("+psycopg2", "")
    dump = subprocess.run([programs / "pg_dump", plain], capture_output=True, text=True, check=True).stdout
    assert "ragwright.winner" in dump
    parts = urlsplit(database)
    assert tracker.uri == f"postgresql+psycopg2://127.0.0.1:{parts.port}/postgres"
    written = [file.read_bytes().decode("utf-8", "replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 20
    said = capfd.readouterr()
    for text in (dump, *written, *warned, tracker.uri, said.out, said.err):
        assert PASSWORD not in text
