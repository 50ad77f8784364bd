"""The command line's part about data sets. Heavy imports stand inside the commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize.cli.options import Json, print_json
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from optimize.data.locating.locating import OnStep
    from programs.lm import LMSpec

data = typer.Typer(
    name="data", help="Bring in, split and check data sets.", no_args_is_help=True, rich_markup_mode=None
)

FORMATS = {
    "squad": "a JSON file",
    "huggingface": "a hub id, or jsonl, json, csv or parquet files",
    "beir": "a folder with corpus.jsonl, queries.jsonl and qrels/",
    "chroma-chunking": "a folder with questions_df.csv and corpora/",
}
"""Name of a format that `data import` reads -> what its source is."""

_FORMAT_HELP = "; ".join(f"{name}: {source}" for name, source in FORMATS.items()) + "."


@data.command("import")
def data_import(
    source: Annotated[str, typer.Argument(help="A file, a folder, or a hub id: see --format.")],
    out: Annotated[Path, typer.Option(help="The new data set folder, such as datasets/NAME.")],
    format_: Annotated[str, typer.Option("--format", help=_FORMAT_HELP)] = "squad",
    columns: Annotated[
        str, typer.Option(help="For huggingface: ours=theirs, separated by commas.")
    ] = "question=question,answers=answers,context=context",
    split: Annotated[str | None, typer.Option(help="For huggingface: which split.")] = None,
    revision: Annotated[str | None, typer.Option(help="For a hub id: which revision.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split by document.")] = 0,
) -> None:
    """Make a data set folder from data that others made."""
    if format_ not in FORMATS:
        raise RagwrightError(f"--format: unknown format {format_!r}; choices: {', '.join(FORMATS)}.")
    from optimize.data.importing.common import import_beir, import_chroma_chunking, import_huggingface, import_squad

    if format_ == "huggingface":
        pairs = dict(pair.split("=", 1) for pair in columns.split(",") if "=" in pair)
        print(import_huggingface(source, out, pairs, split, revision, seed))
    else:
        local = {"squad": import_squad, "beir": import_beir, "chroma-chunking": import_chroma_chunking}
        print(local[format_](Path(source), out, seed))


@data.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A data set folder.")],
    json_: Json = False,
) -> None:
    """Read a data set, verify every span, and say what it can measure."""
    from optimize.studies.plan import describe_dataset

    lines = describe_dataset(folder)
    if json_:
        print_json(lines)
    else:
        for name, value in lines.items():
            print(f"{name:<12} {value}")
        print("ok")


@data.command("split")
def data_split(
    folder: Annotated[Path, typer.Argument(help="A data set folder with questions.jsonl.")],
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Deal questions.jsonl into train, validation and test, whole documents together."""
    from optimize.cli.scaffold import split_folder

    print(split_folder(folder, seed))


@data.command("locate")
def data_locate(
    folder: Annotated[Path, typer.Argument(help="A data set folder, split or with questions.jsonl.")],
    lm: Annotated[
        str | None,
        typer.Option(help="Asked about what is not sure: a name or {...}, as a study file's lm. It reads passages."),
    ] = None,
    max_calls: Annotated[int, typer.Option(help="Largest number of calls of --lm.", min=1)] = 200,
    runs: Annotated[Path, typer.Option(help="Where answers of --lm are kept.", envvar="RAGWRIGHT_RUNS")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be found, and write nothing.")] = False,
    json_: Json = False,
) -> None:
    """Find where the corpus states the answers of questions without evidence, and write it into their lines.

    What is not sure goes into review.jsonl in the folder. Accept a proposal there by setting "accept" to its number
    (the first is 0), or reject all of them by false, and run this again.
    """
    from optimize.data.locating.locating import describe, locate_folder

    spec = _lm_spec(lm)
    with _bar(hidden=json_) as on_step:
        located = locate_folder(folder, lm=spec, max_calls=max_calls, runs=runs, dry_run=dry_run, on_step=on_step)
    if json_:
        print_json(located.as_json())
    else:
        print("\n".join(describe(located)))


@contextmanager
def _bar(hidden: bool) -> Iterator[OnStep]:
    """A bar on standard error that shows the step under way, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def _lm_spec(given: str | None) -> LMSpec | None:
    """A language model by name, or by a mapping as YAML writes it on one line."""
    if given is None:
        return None
    import yaml

    from programs.lm import parse_lm

    try:
        return parse_lm(yaml.safe_load(given) if given.lstrip().startswith("{") else given)
    except (yaml.YAMLError, RagwrightError) as error:
        raise RagwrightError(f"--lm: {' '.join(str(error).split())}") from None
