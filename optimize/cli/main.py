"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize.cli.answers import ask, evaluate, predict, serve
from optimize.cli.data import data
from optimize.cli.options import (
    RUNS,
    Calls,
    Json,
    Minutes,
    Runs,
    Seed,
    StudyArg,
    Tracking,
    console,
    print_json,
)
from optimize.cli.results import compare, export, list_runs, report, ui
from optimize.cli.screen import screen
from programs.environment import set_environment_defaults
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from optimize.cli.launch import Launched, Overrides
    from optimize.studies.study import Phases

app = typer.Typer(
    name="ragwright",
    help="Find the retrieve-then-generate program that answers best for what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: what draws boxes around it takes longer to import than the whole command line.
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)
app.add_typer(data)
app.command()(screen)


def main() -> None:
    """Run the command line; expected problems become one line each and exit code 1."""
    set_environment_defaults()
    try:
        app(standalone_mode=False)
    except RagwrightError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: everything that was finished is kept; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # click's usage errors print themselves; Typer carries its own copy of click.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise


@app.command()
def quickstart(
    runs: Runs = RUNS, seed: Seed = None, lm_calls: Calls = None, minutes: Minutes = None, json_: Json = False
) -> None:
    """Tune a program on the sample handbook with the local model: no key, no network, no GPU."""
    from optimize.cli.launch import Overrides
    from optimize.cli.scaffold import quickstart_study
    from optimize.studies.study import Phases

    with quickstart_study() as file:
        _run(file, runs, Phases(), Overrides(seed, lm_calls, minutes), json_, None)


def _add_study_command(name: str, about: str, **parts: bool) -> None:
    """Add a command that runs a study file; `parts` are the phases that it leaves out or does."""

    @app.command(name=name, help=about)
    def command(
        study: StudyArg,
        runs: Runs = RUNS,
        seed: Seed = None,
        lm_calls: Calls = None,
        minutes: Minutes = None,
        tracking_uri: Tracking = None,
        json_: Json = False,
    ) -> None:
        from optimize.cli.launch import Overrides
        from optimize.studies.study import Phases

        _run(study, runs, Phases(**parts), Overrides(seed, lm_calls, minutes), json_, tracking_uri)


_add_study_command(
    "optimize", "Search pipeline and compiled prompts together, then confirm, test and export the winner."
)
_add_study_command("sweep", "Search the pipeline with the prompts as they are.", compile=False)
_add_study_command(
    "compile", "Compile prompts for the baseline's pipeline and compare them with the bare one.", search=False
)


def _run(study: Path, runs: Path, phases: Phases, said: Overrides, as_json: bool, uri: str | None) -> None:
    from optimize.cli.launch import launch
    from optimize.studies.check import check_study

    launched = launch(check_study(study, said.apply), runs, phases, console(as_json), uri)
    if as_json:
        from optimize.reporting.headline import finite

        print_json(finite(launched.outcome.as_json()))
    else:
        _print_results(launched, runs)


def _print_results(launched: Launched, runs: Path) -> None:
    from rich.console import Console

    from optimize.reporting.report import render_terminal

    out = Console()
    out.print(render_terminal(launched.outcome))
    out.print(f"\nreport  {launched.report}", soft_wrap=True, highlight=False)
    where = "" if runs == RUNS else f" --runs {runs}"
    if launched.export is not None:
        out.print(f"export  {launched.export}", soft_wrap=True, highlight=False)
        out.print(f'\nnext    ragwright ask {launched.export} "your question"{where}', soft_wrap=True, highlight=False)
    out.print(f"        ragwright ui{where}", soft_wrap=True, highlight=False)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new folder.")],
    documents: Annotated[
        Path | None, typer.Option(help="A folder of md, txt or html files, or a corpus.jsonl.")
    ] = None,
    existing_collection: Annotated[
        str | None,
        typer.Option(help="A Chroma collection instead, FOLDER::NAME or http://HOST:PORT::NAME; it is only read."),
    ] = None,
    embedder: Annotated[str | None, typer.Option(help="What made the collection's vectors.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="JSON lines with at least 'question' and 'answer'; may come later.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Set up a study over your own documents, and say how to get from there to a run."""
    from optimize.cli.scaffold import Documents, ExistingCollection, scaffold

    content: Documents | ExistingCollection
    if documents is not None and existing_collection is None:
        content = Documents(documents)
    elif existing_collection is not None and documents is None:
        if embedder is None:
            raise RagwrightError("--existing-collection needs --embedder: the name of what made its vectors.")
        content = ExistingCollection(existing_collection, embedder)
    else:
        raise RagwrightError("init needs either --documents or --existing-collection.")
    for line in scaffold(folder, content, questions, seed):
        print(line)


@app.command()
def check(study: StudyArg, json_: Json = False) -> None:
    """Find everything that is wrong with a study, and name every endpoint that will see the documents."""
    from optimize.studies.check import check_study
    from optimize.studies.plan import describe_study

    lines = describe_study(check_study(study))
    if json_:
        print_json(lines)
    else:
        for name, value in lines.items():
            print(f"{name:<12} {value}")
        print("ok")


@app.command()
def plan(study: StudyArg, lm_calls: Calls = None, json_: Json = False) -> None:
    """Say what a study will cost and which effect it can show, without a single LM call."""
    from optimize.cli.launch import Overrides
    from optimize.studies.check import check_study
    from optimize.studies.plan import plan_study

    lines = plan_study(check_study(study, Overrides(lm_calls=lm_calls).apply))
    if json_:
        print_json(lines)
    else:
        for name, value in lines.items():
            print(f"{name:<22} {value}")


@app.command()
def index(study: StudyArg, runs: Runs = RUNS) -> None:
    """Build the index of the study's baseline ahead of time."""
    from optimize.studies.check import check_retrieval
    from programs.config import PipelineConfig
    from programs.index import open_index

    config, dataset = check_retrieval(study)
    baseline = PipelineConfig(**config.baseline.model_dump()).canonical()
    opened = open_index(runs, dataset.corpus, baseline, served=True)
    print(f"{len(opened.chunks)} chunks in {opened.folder}")


@app.command()
def doctor(json_: Json = False) -> None:
    """Say what is installed and whether the local model answers."""
    from optimize.cli.doctor import examine

    findings = examine()
    if json_:
        print_json([{"what": f.what, "ok": f.ok, "detail": f.detail} for f in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what:<14} {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise RagwrightError("something is missing; see above.")


for _command in (evaluate, ask, predict, serve, report, compare, export, ui):
    app.command()(_command)
app.command(name="runs")(list_runs)
