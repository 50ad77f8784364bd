"""The command line's part about data sets. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from programs.errors import RagwrightError

data = typer.Typer(
    name="data", help="Bring in, split and check data sets.", no_args_is_help=True, rich_markup_mode=None
)


@data.command("import")
def data_import(
    source: Annotated[str, typer.Argument(help="A file, a folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The new data set folder, such as datasets/NAME.")],
    format_: Annotated[str, typer.Option("--format", help="squad or huggingface.")] = "squad",
    columns: Annotated[
        str, typer.Option(help="For huggingface: ours=theirs, separated by commas.")
    ] = "question=question,answers=answers,context=context",
    split: Annotated[str | None, typer.Option(help="For huggingface: which split.")] = None,
    revision: Annotated[str | None, typer.Option(help="For a hub id: which revision.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split by document.")] = 0,
) -> None:
    """Make a data set folder from SQuAD's format or from anything that Hugging Face `datasets` reads."""
    from optimize.importing import import_huggingface, import_squad

    if format_ == "squad":
        print(import_squad(Path(source), out, seed))
    elif format_ == "huggingface":
        pairs = dict(pair.split("=", 1) for pair in columns.split(",") if "=" in pair)
        print(import_huggingface(source, out, pairs, split, revision, seed))
    else:
        raise RagwrightError(f"--format: unknown format {format_!r}; choices: squad, huggingface.")


@data.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A data set folder.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Read a data set, verify every span, and say what it can measure."""
    from optimize.plan import describe_dataset

    lines = describe_dataset(folder)
    if json_:
        print(json.dumps(lines, ensure_ascii=False, indent=1))
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
    from optimize.scaffold import split_folder

    print(split_folder(folder, seed))
