"""A study in MLflow: one parent run, one child run for every evaluation and every turn of an optimizer.

MLflow listens and never decides. Everything is logged by one thread behind the search, which never waits for it; while
the store is down, what there is to log waits with it. What a store already holds is not logged again, and what it lacks
is: the end of the study, or the same command later, completes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from optimize.data.dataset import Dataset
from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.outcome import Entry, Outcome
from optimize.runs.run_dir import RunDir
from optimize.tracking.facts import Facts, Messages
from optimize.tracking.log_queue import LogQueue, TryLaterError
from optimize.tracking.store import StudyRuns, connect, find_experiment, load_mlflow, troubles
from optimize.tracking.writing import StudyWriter
from programs.addresses import cleaned, public_uri

PATIENCE_S = 60.0
"""How long the end of a study waits for one thing to be logged."""

HURRY_S = 5.0
"""The same for a study that was interrupted."""

MANY = 50
"""So many things to log at the end of a study take long enough to say so."""

ATTEMPTS = 2
"""How often something is tried that a working store refuses."""


def default_uri(runs: Path) -> str:
    """The store inside the runs folder."""
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


@dataclass
class Times:
    """What logging took of a study.

    Attributes:
        open_s: Seconds that it took to begin: before the study, and mostly to import MLflow.
        blocked_s: Seconds that the study waited while it went on.
        longest_s: The longest wait for one evaluation.
        entries: Evaluations that were handed over.
        behind_s: Seconds of work behind the study.
        end_s: Seconds that the end waited until all was logged.
    """

    open_s: float = 0.0
    blocked_s: float = 0.0
    longest_s: float = 0.0
    entries: int = 0
    behind_s: float = 0.0
    end_s: float = 0.0


class Tracker:
    """Logs a study. Trouble with the store is told and never raised.

    Args:
        uri: Any MLflow tracking URI.
        dataset: The data; its name is the experiment's, so that studies over the same data stand side by side.
        study: The study's name.
        fingerprint: The study's fingerprint.
        run_dir: The study's folder; artifacts of a database go to `mlartifacts` beside it.
        warn: Is told what went wrong, from another thread.

    Attributes:
        uri: The tracking URI as it may be shown: without user, password and query.
    """

    def __init__(
        self, uri: str, dataset: Dataset, study: str, fingerprint: str, run_dir: Path, warn: Callable[[str], None]
    ) -> None:
        self.uri, self._uri = public_uri(uri), uri
        self.dataset, self.key = dataset, f"{study}-{fingerprint}"
        self._run_dir, self._warn = run_dir.resolve(), warn
        self._queue = LogQueue()
        self._times = Times()
        self._facts: Facts | None = None
        self._writer: StudyWriter | None = None
        self._trouble = ""
        self._told: set[str] = set()

    @property
    def times(self) -> Times:
        """What logging took so far."""
        return replace(self._times, behind_s=self._queue.seconds)

    def open(self, study_yaml: str) -> None:
        """Begin or take up the parent run; `study_yaml` becomes its artifact and its params."""
        begun = time.perf_counter()
        load_mlflow()
        run = RunDir(self._run_dir)
        self._facts = Facts(self._uri, self.key, self.dataset, run, study_yaml, self._warn)
        self._put("study", lambda writer: writer.turns())
        self._times.open_s = time.perf_counter() - begun

    def entry(self, entry: Entry, evaluation: Evaluation, messages: Messages) -> None:
        """Log a finished evaluation, unless the store holds it as it is.

        Args:
            entry: What was scored, with its numbers.
            evaluation: Its rows.
            messages: Renders what the LM is sent, with placeholders for the inputs; called in another thread.
        """
        if self._facts is None:
            return
        begun = time.perf_counter()
        self._put(entry.unit, lambda writer: writer.entry(entry, evaluation, messages))
        waited = time.perf_counter() - begun
        self._times.entries += 1
        self._times.blocked_s += waited
        self._times.longest_s = max(self._times.longest_s, waited)

    def drain(self, patience_s: float = PATIENCE_S) -> int:
        """Wait until what was handed over is logged; how many things are not, because the store does not answer."""
        return self._queue.drain(patience_s)

    def close(self, outcome: Outcome, files: list[Path], export: Path | None = None) -> None:
        """Log the result, wait until everything is logged, and end the parent run.

        Args:
            outcome: What was found.
            files: Reports, logged as artifacts.
            export: The export folder, logged as the artifact folder `export`, its prompts and its program entered into
                the registries; None where there is no winner.

        Raises:
            Exception: Logging met a defect of its own; what was to be logged after it was.
        """
        if self._facts is None:
            return
        begun = time.perf_counter()
        self._put("outcome", lambda writer: writer.outcome(outcome, files, export, self._seconds()))
        if export is not None:
            self._put("registry", lambda writer: writer.register(outcome, export))
        if len(self._queue) > MANY:
            self._warn(f"MLflow is {len(self._queue)} runs behind; they are logged now.")
        left = self.drain(PATIENCE_S)
        self._queue.stop()
        self._times.end_s = time.perf_counter() - begun
        if left:
            why = self._trouble or f"nothing was logged for {PATIENCE_S:.0f} s"
            self._warn(f"MLflow at {self.uri} lacks {left} runs of this study ({why}); the same command logs them.")
        if self._queue.error is not None:
            raise self._queue.error

    def interrupted(self) -> None:
        """Mark the parent run as stopped half-way; the next `open` takes it up again."""
        if self._facts is None:
            return
        self._put("interrupted", lambda writer: writer.interrupted(), first=True)
        self._queue.drain(HURRY_S, HURRY_S)
        self._queue.stop()

    def _put(self, key: str, work: Callable[[StudyWriter], None], *, first: bool = False) -> None:
        self._queue.put(key, lambda: self._attempt(key, work), first=first)

    def _attempt(self, key: str, work: Callable[[StudyWriter], None]) -> None:
        """Do a job; where the store is down, it is done later, and what a working store refuses is told."""
        for _ in range(ATTEMPTS):
            try:
                if self._writer is None:
                    self._writer = self._connect()
                work(self._writer)
            except troubles() as error:
                self._trouble = self._said(error)
                if self._writer is None or not self._answers(self._writer):
                    self._writer = None
                    self._tell(
                        "down",
                        f"MLflow at {self.uri} failed ({self._trouble}); the study goes on without it, and what is "
                        "missing there is logged as soon as it answers, or later by the same command.",
                    )
                    raise TryLaterError from None
            else:
                self._told.discard("down")
                return
        self._tell(
            "refused",
            f"MLflow at {self.uri} refused {key} ({self._trouble}); the study goes on, and the same command logs what "
            "is missing there.",
        )

    def _connect(self) -> StudyWriter:
        assert self._facts is not None, "set before there is anything to log"
        client = connect(self._uri)
        artifacts = self._run_dir.parent / "mlartifacts"
        experiment = find_experiment(client, self._uri, self.dataset.name, artifacts)
        return StudyWriter(StudyRuns(client, experiment, self.key), self._facts)

    def _answers(self, writer: StudyWriter) -> bool:
        try:
            writer.store.client.search_experiments(max_results=1)
        except troubles():
            return False
        return True

    def _said(self, error: Exception) -> str:
        """The first line of an error, without what may be secret."""
        said = cleaned(str(error), self._uri).strip()
        return said.splitlines()[0][:200] if said else type(error).__name__

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._warn(text)

    def _seconds(self) -> dict[str, float]:
        times = self.times
        return {"blocked": times.blocked_s, "longest_blocked": times.longest_s, "behind": times.behind_s}
