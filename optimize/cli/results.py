"""The command line's part about finished studies. Heavy imports stand inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.options import RUNS, Json, RunArg, Runs, Tracking, print_json
from programs.errors import RagwrightError


def report(
    run: RunArg = None,
    runs: Runs = RUNS,
    brief: Annotated[bool, typer.Option("--brief", help="Print the verdict and the comparison only.")] = False,
    json_: Json = False,
) -> None:
    """Show a study's result again and write its report anew, as report.html and report.md."""
    from rich.console import Console

    from optimize.reporting.headline import finite, headline
    from optimize.reporting.record import read_record
    from optimize.reporting.report import build_page, render_terminal, write_page
    from optimize.reporting.terminal import render_page
    from optimize.runs.finished import find_run

    record = read_record(find_run(runs, run))
    outcome, page = record.outcome, build_page(record)
    html, markdown = write_page(page, record.run)
    if json_:
        files = {"html": str(html), "markdown": str(markdown)}
        print_json({"result": headline(outcome).sentence, "report": files, "outcome": finite(outcome.as_json())})
        return
    console = Console()
    console.print(render_terminal(outcome) if brief else render_page(page))
    console.print(f"\nreport  {html}", soft_wrap=True, highlight=False)


def compare(
    run: Annotated[list[str], typer.Argument(help="Studies: folders or beginnings of their names.", metavar="RUN...")],
    runs: Runs = RUNS,
    out: Annotated[Path | None, typer.Option(help="The page; default: compare.html in the runs folder.")] = None,
    json_: Json = False,
) -> None:
    """Set several studies beside each other: verdicts, differences, settings, costs."""
    from rich.console import Console

    from optimize.reporting.compare import as_json
    from optimize.reporting.compare import compare as compare_studies
    from optimize.reporting.compare_page import build_page
    from optimize.reporting.html import html
    from optimize.reporting.markdown import markdown
    from optimize.reporting.terminal import render_page
    from optimize.runs.finished import find_run
    from optimize.runs.run_dir import write_whole

    comparison = compare_studies([find_run(runs, name) for name in run])
    page = build_page(comparison)
    file = out or runs / "compare.html"
    if not file.parent.is_dir():
        raise RagwrightError(f"{file.parent}: no such folder; make it, or name another file with --out.")
    write_whole(file, html(page))
    write_whole(file.with_suffix(".md"), markdown(page))
    if json_:
        print_json({**as_json(comparison), "report": str(file)})
        return
    console = Console()
    console.print(render_page(page))
    console.print(f"\nreport  {file}", soft_wrap=True, highlight=False)


def list_runs(runs: Runs = RUNS, json_: Json = False) -> None:
    """List the studies of the runs folder, the last one first, unfinished ones too."""
    from optimize.reporting.study_list import as_json, as_lines, list_studies

    found = list_studies(runs)
    if json_:
        print_json(as_json(found))
    elif not found:
        print(f"{runs}: no studies yet; `ragwright quickstart` runs a first one.")
    else:
        print("\n".join(as_lines(found)))


def export(
    run: RunArg = None, out: Annotated[Path | None, typer.Option(help="Copy it here.")] = None, runs: Runs = RUNS
) -> None:
    """Say where a study's export lies, or copy it somewhere."""
    import shutil
    import uuid

    from optimize.runs.finished import find_run

    folder = find_run(runs, run).export
    if not folder.is_dir():
        raise RagwrightError(f"{folder.parent}: the study has no winner yet, so there is nothing to export.")
    if out is not None:
        if out.exists():
            raise RagwrightError(f"{out}: exists already; name a new folder.")
        aside = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
        try:
            shutil.copytree(folder, aside)
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    print(out or folder)


def ui(
    run: Annotated[
        str | None, typer.Argument(help="A study's folder or the beginning of its name; all experiments.")
    ] = None,
    runs: Runs = RUNS,
    port: Annotated[int, typer.Option(help="On this machine only.", min=1024, max=65535)] = 5000,
    tracking_uri: Tracking = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the first address in the browser.")] = False,
) -> None:
    """Open MLflow on the right store, at a study if one is named."""
    import webbrowser

    from optimize.runs.finished import find_run, read_outcome
    from optimize.tracking.ui import serve_ui
    from optimize.tracking.ui_addresses import Study

    study = None
    if run is not None:
        folder = find_run(runs, run)
        outcome = read_outcome(folder)
        study = Study(f"{outcome.study}-{outcome.fingerprint}", outcome.dataset, outcome.metric)
        runs = folder.path.resolve().parent
    serve_ui(runs, port, tracking_uri, study, webbrowser.open if open_ else None)
