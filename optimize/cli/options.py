"""What the commands share: arguments, options, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

RUNS = Path("runs")

StudyArg = Annotated[Path, typer.Argument(help="A study file.", metavar="STUDY")]
RunArg = Annotated[str | None, typer.Argument(help="A study's folder or the beginning of its name; the last one.")]
Runs = Annotated[Path, typer.Option(help="Where everything is kept.", envvar="RAGWRIGHT_RUNS")]
Seed = Annotated[int | None, typer.Option(help="Instead of the study's seed.")]
Calls = Annotated[int | None, typer.Option("--lm-calls", help="Instead of budget.lm_calls.", min=1)]
Minutes = Annotated[float | None, typer.Option(help="Instead of budget.minutes.", min=0.1)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
Tracking = Annotated[str | None, typer.Option(help="An MLflow tracking URI; default: a database in the runs folder.")]


def console(quiet: bool) -> Console | None:
    """Where progress is shown; None for a machine that wants the result alone."""
    from rich.console import Console

    return None if quiet else Console()


def print_json(content: Any) -> None:
    """A result for a machine."""
    print(json.dumps(content, ensure_ascii=False, indent=1, default=str))
