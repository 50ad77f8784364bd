"""A study in MLflow: one parent run, one child run for every evaluation. MLflow listens and never decides.

What a store already holds is not logged again, and what it lacks is: a study that is run again completes it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.dataset import Dataset
from optimize.evaluate import Evaluation
from optimize.headline import headline
from optimize.outcome import Entry, Outcome
from optimize.run_records import (
    dataset_record,
    describe_outcome,
    entry_metrics,
    entry_outcome,
    messages_json,
    outcome_metrics,
    rows_table,
    study_params,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STUDY, UNIT, PHASE, OUTCOME = "ragwright.study", "ragwright.unit", "ragwright.phase", "ragwright.outcome"
"""Tags of every run."""

PARENT_UNIT = "study"
FINISHED = "FINISHED"


def default_uri(runs: Path) -> str:
    """The store inside the runs folder."""
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


class Tracker:
    """Logs a study. Trouble with the store is told once and ends the logging, never the study.

    Args:
        uri: Any MLflow tracking URI.
        dataset: The data; its name is the experiment's, so that studies over the same data stand side by side.
        study: The study's name.
        fingerprint: The study's fingerprint.
        run_dir: The study's folder; artifacts of a database beside it go to `mlartifacts` beside it.
        warn: Is told what went wrong.
    """

    def __init__(
        self, uri: str, dataset: Dataset, study: str, fingerprint: str, run_dir: Path, warn: Callable[[str], None]
    ) -> None:
        self.uri, self.dataset = uri, dataset
        self.key = f"{study}-{fingerprint}"
        self._artifacts = run_dir.resolve().parent / "mlartifacts"
        self._warn = warn
        self._examples = {example.id: example for example in dataset.examples}
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._parent = ""
        self._metric = ""
        self._finished: dict[str, Run] = {}
        self._asked: dict[str, float] = {}
        self._open: dict[str, Run] = {}

    def open(self, study_yaml: str) -> None:
        """Begin or take up the parent run; `study_yaml` becomes its artifact and its params."""
        with self._forgiving():
            client = self._client = connect(self.uri)
            self._experiment = self._find_experiment(client)
            self._find_runs(client)
            run = self._take(client, PARENT_UNIT, "study")
            self._parent = run.info.run_id
            if run.info.status != "RUNNING":
                client.update_run(self._parent, status="RUNNING")
            params = study_params(study_yaml)
            self._metric = params["metric"]
            self._log(client, run, params=params)
            client.log_text(self._parent, study_yaml, "study.yaml")
            client.log_inputs(self._parent, [dataset_record(self.dataset, "study")])

    def entry(self, entry: Entry, evaluation: Evaluation, messages: Callable[[], list[dict[str, Any]]]) -> None:
        """Log a finished evaluation, unless the store holds it with as many questions.

        Args:
            entry: What was scored, with its numbers.
            evaluation: Its rows.
            messages: Renders what the LM is sent, with placeholders for the inputs.
        """
        if self._client is None or self._asked.get(entry.unit, -1) >= entry.summary.n:
            return
        with self._forgiving():
            client, held = self._client, self._finished.get(entry.unit)
            run = held or self._take(client, entry.unit, entry.phase)
            run_id = run.info.run_id
            client.log_text(run_id, rows_table(evaluation, self._examples, self.dataset.corpus), "rows.json")
            client.log_text(run_id, messages_json(messages()), "messages.json")
            if held is None:
                client.log_inputs(run_id, [dataset_record(self.dataset, entry.phase)])
            tags = {OUTCOME: entry_outcome(entry), **_TABLE_TAG}
            self._log(client, run, entry.params, entry_metrics(entry, self._metric), tags, now=held is not None)
            client.set_terminated(run_id)
            self._finished[entry.unit] = run
            self._asked[entry.unit] = entry.summary.n

    def close(self, outcome: Outcome, files: list[Path], export: Path | None = None) -> None:
        """Log the result and end the parent run.

        Args:
            outcome: What was found.
            files: Reports, logged as artifacts.
            export: The export folder, logged as the artifact folder `export`; None where there is no winner.
        """
        if self._client is None:
            return
        with self._forgiving():
            client = self._client
            for file in files:
                client.log_artifact(self._parent, str(file))
            if export is not None:
                client.log_artifacts(self._parent, str(export), "export")
            said = headline(outcome)
            winner = f"{outcome.winner.config.fingerprint()}/{outcome.winner.candidate}" if outcome.winner else "none"
            tags = {
                "mlflow.note.content": describe_outcome(outcome),
                OUTCOME: said.word,
                "ragwright.verdict": outcome.verdict or "none",
                "ragwright.winner": winner,
            }
            self._log(client, client.get_run(self._parent), metrics=outcome_metrics(outcome), tags=tags, now=True)
            client.set_terminated(self._parent)

    def interrupted(self) -> None:
        """Mark the parent run as stopped half-way; the next `open` takes it up again."""
        if self._client is not None:
            with self._forgiving():
                self._client.set_terminated(self._parent, status="KILLED")

    def _find_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.dataset.name)
        if found is not None:
            return str(found.experiment_id)
        place = self._artifacts.as_uri() if self.uri.startswith("sqlite:") else None
        return str(client.create_experiment(self.dataset.name, place, {"ragwright": "data set"}))

    def _find_runs(self, client: MlflowClient) -> None:
        """What the store holds of this study; a run that a killed process left open is completed."""
        page: str | None = ""
        while page is not None:
            found = client.search_runs([self._experiment], f"tags.`{STUDY}` = '{self.key}'", page_token=page or None)
            for run in found:
                unit = run.data.tags[UNIT]
                if unit != PARENT_UNIT and run.info.status == FINISHED:
                    self._finished[unit] = run
                    self._asked[unit] = run.data.metrics.get("n", 0)
                else:
                    self._open[unit] = run
            page = found.token or None

    def _take(self, client: MlflowClient, unit: str, phase: str) -> Run:
        """The open run of a unit, or a new one."""
        if unit in self._open:
            return self._open.pop(unit)
        tags = {STUDY: self.key, UNIT: unit, PHASE: phase}
        if unit != PARENT_UNIT:
            tags["mlflow.parentRunId"] = self._parent
        return client.create_run(self._experiment, tags=tags, run_name=self.key if unit == PARENT_UNIT else unit)

    def _log(
        self,
        client: MlflowClient,
        run: Run,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        now: bool = False,
    ) -> None:
        """One request; metrics carry the run's start as their time, so that logging them twice changes nothing."""
        from mlflow.entities import Metric, Param, RunTag

        at = int(time.time() * 1000) if now else run.info.start_time
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, at, 0) for name, value in (metrics or {}).items()],
            # MLflow refuses to change a param, even one that only says the same in other words.
            params=[Param(k, str(v)) for k, v in (params or {}).items() if k not in run.data.params],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """The one place where MLflow may fail: the study goes on, and a later run of it logs what is missing."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._client = None
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            self._warn(
                f"MLflow at {self.uri} failed ({reason}); the study goes on without it, and the same command logs "
                "what is missing later."
            )


_TABLE_TAG = {"mlflow.loggedArtifacts": '[{"path": "rows.json", "type": "table"}]'}
"""What makes MLflow's pages show the artifact as a table."""


def connect(uri: str) -> MlflowClient:
    """A client that keeps quiet and gives up on an unreachable server within seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if uri.startswith("sqlite:///"):
        _check_sqlite(Path(uri.removeprefix("sqlite:///")))
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow.MlflowClient(tracking_uri=uri)


def _check_sqlite(file: Path) -> None:
    """Fail at once on a database that cannot be used; MLflow would try again for minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
