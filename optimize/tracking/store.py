"""The runs of one study in an MLflow store: found again, begun, written and ended. Everything here may fail."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from programs.addresses import is_database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run

STUDY, UNIT, PHASE, OUTCOME = "ragwright.study", "ragwright.unit", "ragwright.phase", "ragwright.outcome"
"""Tags of every run."""

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's description, in Markdown."""

PARENT_UNIT = "study"
FINISHED = "FINISHED"
_MOST_PARAMS, _MOST_TAGS, _MOST_METRICS = 100, 100, 1000
"""What MLflow takes in one request."""

Values = Iterable[tuple[str, float, int]]
"""Metrics: name, value, step."""


@dataclass
class Held:
    """A run as the store holds it.

    Attributes:
        run_id: Its id.
        started: When it began, in milliseconds.
        params: Names of its params.
        tags: Its tags.
        questions: Rows that were logged with it; 0 while it is not finished.
        finished: Whether it was logged to its end.
    """

    run_id: str
    started: int
    params: set[str]
    tags: dict[str, str]
    questions: int
    finished: bool

    @classmethod
    def of(cls, run: Run) -> Held:
        """Read MLflow's run."""
        finished = run.info.status == FINISHED
        questions = int(run.data.metrics.get("n", 0)) if finished else 0
        return cls(run.info.run_id, run.info.start_time, set(run.data.params), dict(run.data.tags), questions, finished)


class StudyRuns:
    """A study's runs by unit, one parent and its children.

    Args:
        client: Of the store.
        experiment: Id of the experiment.
        key: The study's name and fingerprint, by which its runs are found again.
    """

    def __init__(self, client: MlflowClient, experiment: str, key: str) -> None:
        self.client, self.experiment, self.key = client, experiment, key
        self.held: dict[str, Held] = {}
        self._find()
        self.parent = self.take(PARENT_UNIT, "study")
        client.update_run(self.parent.run_id, status="RUNNING")

    @property
    def children(self) -> dict[str, Held]:
        """All runs but the parent."""
        return {unit: held for unit, held in self.held.items() if unit != PARENT_UNIT}

    def take(self, unit: str, phase: str) -> Held:
        """The run of a unit: the one there is, also one that a killed process left open, or a new one."""
        if unit not in self.held:
            tags = {STUDY: self.key, UNIT: unit, PHASE: phase}
            if unit != PARENT_UNIT:
                tags["mlflow.parentRunId"] = self.parent.run_id
            name = self.key if unit == PARENT_UNIT else unit
            self.held[unit] = Held.of(self.client.create_run(self.experiment, tags=tags, run_name=name))
        return self.held[unit]

    def write(
        self,
        held: Held,
        params: Mapping[str, Any] | None = None,
        metrics: Values = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log numbers and words; a param that is there already stays as it is."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        # MLflow refuses to change a param, even one that only says the same in other words.
        new = [Param(name, str(value)) for name, value in (params or {}).items() if name not in held.params]
        values = [Metric(name, value, now, step) for name, value, step in metrics]
        notes = [RunTag(name, value) for name, value in (tags or {}).items()]
        while new or values or notes:
            room = _MOST_METRICS - len(new[:_MOST_PARAMS]) - len(notes[:_MOST_TAGS])
            self.client.log_batch(
                held.run_id, metrics=values[:room], params=new[:_MOST_PARAMS], tags=notes[:_MOST_TAGS]
            )
            new, values, notes = new[_MOST_PARAMS:], values[room:], notes[_MOST_TAGS:]
        held.params.update(params or {})
        held.tags.update(tags or {})

    def write_text(self, held: Held, text: str, name: str) -> None:
        """Log an artifact."""
        self.client.log_text(held.run_id, text, name)

    def write_input(self, held: Held, data: Dataset, context: str) -> None:
        """Log the data set as an input; `context` says what it was used for: a phase, or `study`."""
        from mlflow.entities import DatasetInput, InputTag

        self.client.log_inputs(held.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def end(self, held: Held, questions: int = 0, status: str = FINISHED) -> None:
        """Mark a run as ended."""
        self.client.set_terminated(held.run_id, status=status)
        held.questions, held.finished = questions, status == FINISHED

    def _find(self) -> None:
        page: str | None = ""
        while page is not None:
            found = self.client.search_runs(
                [self.experiment], f"tags.`{STUDY}` = '{self.key}'", page_token=page or None
            )
            self.held |= {run.data.tags[UNIT]: Held.of(run) for run in found}
            page = found.token or None


def find_experiment(client: MlflowClient, uri: str, name: str, artifacts: Path) -> str:
    """The id of the experiment of this name; made, or brought back, where it is not there.

    Args:
        client: Of the store.
        uri: The store; artifacts of a database go where they are told to, those of a server where it puts them.
        name: The data set's.
        artifacts: Where a database's artifacts go.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        place = artifacts.as_uri() if is_database(uri) else None
        return str(client.create_experiment(name, place, {"ragwright": "data set"}))
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def connect(uri: str) -> MlflowClient:
    """A client that keeps quiet and gives up on an unreachable server within seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if uri.startswith("sqlite:///"):
        _check_sqlite(Path(uri.removeprefix("sqlite:///")))
    elif is_database(uri):
        _check_database(uri)
    import mlflow

    # Their warnings repeat addresses, and what they say is said once by whoever hears the exception.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow.MlflowClient(tracking_uri=uri)


@cache
def load_mlflow() -> None:
    """Import what the store needs: in a thread beside other imports Python may see half of a module.

    What is imported stays. Left to the garbage collector, it is looked at again and again while the log is written, and
    each time all threads stand still for some tenths of a second.
    """
    import mlflow
    import mlflow.entities
    import mlflow.store.tracking.rest_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracing.client  # noqa: F401

    gc.collect()
    gc.freeze()


def troubles() -> tuple[type[Exception], ...]:
    """What a store raises that is down, refuses something, is no store, or lacks its database's driver."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, ImportError)


def _check_database(uri: str) -> None:
    """Fail at once on a database that cannot be used; MLflow would try again for minutes."""
    from sqlalchemy import NullPool, create_engine

    with create_engine(uri, poolclass=NullPool).connect():
        pass


def _check_sqlite(file: Path) -> None:
    """The same for a file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
