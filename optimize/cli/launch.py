"""From a study file to a finished study with its report, its export and its runs in MLflow."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.evaluation.outcome import Outcome
from optimize.runs.progress import Progress, Silence, Terminal
from optimize.runs.run_dir import RunDir
from optimize.settings.study import StudyConfig
from optimize.studies.check import Checked

if TYPE_CHECKING:
    from rich.console import Console

    from optimize.studies.study import Phases, Study
    from optimize.tracking.tracker import Tracker


@dataclass(frozen=True)
class Overrides:
    """What the command line says instead of the study file.

    Attributes:
        seed: Of everything random.
        lm_calls: The budget in calls.
        minutes: The budget in time.
    """

    seed: int | None = None
    lm_calls: int | None = None
    minutes: float | None = None

    def apply(self, study: StudyConfig) -> StudyConfig:
        """The study with what was said."""
        budget = {"lm_calls": self.lm_calls, "minutes": self.minutes}
        said = {name: value for name, value in budget.items() if value is not None}
        changes: dict[str, Any] = {"budget": study.budget.model_copy(update=said)}
        if self.seed is not None:
            changes["seed"] = self.seed
        return StudyConfig.model_validate(study.model_copy(update=changes).model_dump())


@dataclass(frozen=True)
class Launched:
    """A finished piece of work and where its results lie."""

    outcome: Outcome
    run: RunDir
    report: Path
    export: Path | None


def launch(
    checked: Checked,
    runs: Path,
    phases: Phases,
    console: Console | None,
    tracking_uri: str | None = None,
) -> Launched:
    """Run a study, or what is left of it, then report and export.

    Args:
        checked: The study and its data.
        runs: The folder that everything is kept under.
        phases: Which parts to do.
        console: Where progress is shown; None shows none.
        tracking_uri: An MLflow store; None means the database in `runs`.
    """
    from optimize.reporting.report import write_report

    # DSPy logs what every row records anyway: answers that were cut off, calls that failed.
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    progress: Progress = Terminal(console) if console is not None else Silence()
    with progress.live() if isinstance(progress, Terminal) else contextlib.nullcontext():
        work = _prepare(checked, runs, phases, progress)
        with _tracked(work, tracking_uri) as tracker:
            outcome = work.execute()
            export = _export(work, outcome) if outcome.winner is not None else None
            report, _ = write_report(outcome, work.run, work.dataset)
            progress.phase("tracking", "what is not logged yet")
            tracker.close(outcome, [report, report.with_suffix(".md")], export)
    return Launched(outcome, work.run, report, export)


def _prepare(checked: Checked, runs: Path, phases: Phases, progress: Progress) -> Study:
    from optimize.studies.study import Study

    runs.mkdir(parents=True, exist_ok=True)
    return Study(
        checked.study,
        checked.dataset,
        checked.spec,
        runs,
        progress,
        phases=phases,
        reflection=checked.reflection,
        judge=checked.judge,
    )


@contextlib.contextmanager
def _tracked(work: Study, uri: str | None) -> Iterator[Tracker]:
    from optimize.settings.study import dump_study
    from optimize.tracking.tracker import Tracker, default_uri

    tracker = Tracker(
        uri or default_uri(work.runs),
        work.dataset,
        work.config.name,
        work.fingerprint,
        work.run.path,
        work.progress.note,
    )
    work.progress.phase("tracking", tracker.uri)
    tracker.open(dump_study(work.config))
    work.listener = tracker
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(tracker.interrupted)
        yield tracker
        on_failure.pop_all()


def _export(work: Study, outcome: Outcome) -> Path:
    from optimize.exporting.export import export_winner

    assert outcome.winner is not None, "only a winner is exported"
    candidate = work.run.read_candidate(outcome.winner.candidate)
    program = work.bench.program(outcome.winner.config, candidate)
    answered = work.run.read_evaluation(outcome.winner.unit)
    return export_winner(
        outcome,
        work.config,
        work.spec,
        work.dataset,
        program,
        work.run.export,
        cache=work.runs / "cache" / "responses.sqlite",
        asked=[row.example_id for row in answered.rows] if answered is not None else (),
    )
