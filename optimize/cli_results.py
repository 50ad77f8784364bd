"""The command line's part about finished studies. Heavy imports stand inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli_options import RUNS, RunArg, Runs, Tracking
from programs.errors import RagwrightError


def report(run: RunArg = None, runs: Runs = RUNS) -> None:
    """Show a study's result again and write its report anew."""
    from rich.console import Console

    from optimize.dataset import load_dataset
    from optimize.launch import find_run, read_outcome
    from optimize.report import render_terminal, write_report
    from optimize.study_config import load_study

    folder = find_run(runs, run)
    outcome = read_outcome(folder)
    dataset = load_dataset(Path(load_study(folder.path / "study.yaml").dataset))
    html, _ = write_report(outcome, folder, dataset)
    Console().print(render_terminal(outcome))
    print(f"report  {html}")


def export(
    run: RunArg = None, out: Annotated[Path | None, typer.Option(help="Copy it here.")] = None, runs: Runs = RUNS
) -> None:
    """Say where a study's export lies, or copy it somewhere."""
    import shutil

    from optimize.launch import find_run

    folder = find_run(runs, run).export
    if not folder.is_dir():
        raise RagwrightError(f"{folder.parent}: the study has no winner yet, so there is nothing to export.")
    if out is not None:
        if out.exists():
            raise RagwrightError(f"{out}: exists already; name a new folder.")
        shutil.copytree(folder, out)
    print(out or folder)


def ui(
    runs: Runs = RUNS,
    port: Annotated[int, typer.Option(help="On this machine only.", min=1024, max=65535)] = 5000,
    tracking_uri: Tracking = None,
) -> None:
    """Open MLflow on the right store."""
    from optimize.ui import serve_ui

    serve_ui(runs, port, tracking_uri)
