"""The questions of an export's data set, over the documents as they are now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.dataset import SPLITS, Dataset
from optimize.data.example import Example, ExampleError, parse_example
from programs.corpus import load_corpus
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.types import Document

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram

LOST = "asked without its evidence"
"""Begins the note of a question whose evidence is gone from the documents."""


def read_again(exported: ExportedProgram, split: str) -> Dataset:
    """Read the data set, its corpus from where the export searches it.

    A question whose evidence is gone from the documents comes without it: its answer can still be scored.

    Args:
        exported: A loaded export.
        split: What is to be asked; the notes are of its questions, first of those that have lost their evidence.

    Raises:
        ProblemsError: Every line that cannot be used.
        RagwrightError: The data set or its corpus is not there.
    """
    from optimize.exporting.export import PIPELINE

    path, place = exported.dataset, exported.corpus_path
    assert place is not None, "a loaded export has a corpus"
    if not path.is_dir():
        raise RagwrightError(
            f"{path}: the data set of {exported.folder} is not there; name its folder under dataset in "
            f"{exported.folder / PIPELINE}."
        )
    corpus = load_corpus(place)
    documents = {document.id: document for document in corpus.documents}
    problems: list[Problem] = []
    notes: dict[str, list[str]] = {name: [] for name in SPLITS}
    splits = {name: tuple(_read(path / f"{name}.jsonl", documents, problems, notes[name])) for name in SPLITS}
    if not problems and not splits[split]:
        problems.append(Problem(f"{path / split}.jsonl", "holds no question"))
    if problems:
        raise ProblemsError(problems)
    told = sorted(notes[split], key=lambda note: LOST not in note)
    return Dataset(path.name, path, corpus, notes=(*told, *corpus.warnings), **splits)


def _read(
    file: Path, documents: Mapping[str, Document], problems: list[Problem], notes: list[str]
) -> Iterator[Example]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(file), f"cannot be read: {error}"))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            example, told = _parse(json.loads(line), documents, f"{file.stem}-{number}")
        except (ValueError, RecursionError) as error:
            problems.append(Problem(place, str(error)))
        else:
            notes += [f"{place}: {note}" for note in told]
            yield example


def _parse(content: object, documents: Mapping[str, Document], name: str) -> tuple[Example, list[str]]:
    """The example of a line, and what is to be said of it."""
    try:
        return parse_example(content, documents, name)
    except ExampleError as error:
        if not isinstance(content, dict) or not content.get("evidence"):
            raise
        example, _ = parse_example({**content, "evidence": []}, documents, name)
        return example, [f"{LOST}: {error}"]
