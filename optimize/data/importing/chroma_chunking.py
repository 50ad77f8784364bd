"""The layout of Chroma's chunking evaluation (Smith and Troynikov 2024): questions about stretches of long texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from optimize.data.example import Example, Fact, Place
from optimize.data.importing.material import Context, Material, read_utf8, visible_part
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.extraction import clean
from programs.types import Document

NEAR = 1000
"""Questions with evidence less than so many characters apart depend on each other: a chunk may hold both, since 256
tokens are about as long. The texts are joined from many sources without headings, so that nothing else tells."""

_QUESTIONS, _COLUMNS = "questions_df.csv", ("question", "references", "corpus_id")
_ABOUT = (
    "Imported from the layout of Chroma's chunking evaluation. Answers are not known. Each reference is a fact with "
    "one place, without the white space at its ends. Split by stretches of the documents: questions with evidence "
    f"less than {NEAR} characters apart, directly or through others, are in one split."
)


class _Reference(BaseModel):
    content: str
    start_index: int = Field(ge=0)
    end_index: int


_REFERENCES = TypeAdapter(list[_Reference])


def read_chroma_chunking(folder: Path) -> Material:
    """Read a folder with `questions_df.csv` (question, references, corpus_id) and `corpora/<corpus_id>.md`.

    The offsets of a reference may count the file's characters, those after Python's translation of line ends, or those
    of the canonical text: its content says which.

    Raises:
        ProblemsError: Every row that cannot be used, with file and line.
        RagwrightError: A file is missing or in another format.
    """
    file = folder / _QUESTIONS
    texts = _texts(folder / "corpora")
    documents = {name: Document(name, clean(text), name.replace("_", " ")) for name, text in texts.items()}
    contexts = {name: _readings(name, text) for name, text in texts.items()}
    examples: list[Example] = []
    problems: list[Problem] = []
    for number, (line, row) in enumerate(_rows(file), start=1):
        try:
            facts = _facts(row, contexts, documents)
        except _RowError as error:
            problems.append(Problem(f"{file}:{line}", str(error)))
        else:
            examples.append(Example(f"{row['corpus_id']}-{number}", clean(row["question"]).strip(), None, facts))
    if problems:
        raise ProblemsError(problems)
    return Material(tuple(documents.values()), _grouped(examples), about=_ABOUT)


def _texts(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.md"))
    if not files:
        raise RagwrightError(f"{folder}: no .md files; the texts are needed as corpora/<corpus_id>.md.")
    return {file.stem: read_utf8(file) for file in files}


def _readings(name: str, text: str) -> tuple[Context, ...]:
    """The texts that offsets may count in; all the same where there is no byte order mark and no carriage return."""
    translated = text.replace("\r\n", "\n").replace("\r", "\n")
    return tuple(Context(reading, name) for reading in dict.fromkeys((text, translated, clean(text))))


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of the table, each with its first line."""
    if not file.is_file():
        raise RagwrightError(f"{file}: no such file; a table with {', '.join(_COLUMNS)} is needed.")
    reader = csv.DictReader(io.StringIO(read_utf8(file).removeprefix("\ufeff"), newline=""), restval="")
    try:
        there = reader.fieldnames or []
        if missing := [name for name in _COLUMNS if name not in there]:
            raise RagwrightError(f"{file}: no column {', '.join(missing)}; columns: {', '.join(there)}.")
        line = reader.line_num + 1
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise RagwrightError(f"{file}:{reader.line_num}: not a CSV table: {error}.") from None


class _RowError(ValueError):
    """A row cannot be used."""


def _facts(
    row: Mapping[str, str], contexts: Mapping[str, Sequence[Context]], documents: Mapping[str, Document]
) -> tuple[Fact, ...]:
    name = row["corpus_id"]
    if not row["question"].strip():
        raise _RowError("the question is blank")
    if name not in documents:
        raise _RowError(f"no text corpora/{name}.md; there are: {', '.join(documents)}")
    places = [_place(reference, contexts[name], documents[name]) for reference in _references(row["references"])]
    return tuple((place,) for place in dict.fromkeys(places))


def _references(value: str) -> list[_Reference]:
    try:
        references = _REFERENCES.validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise _RowError(f"references: {where}{first['msg'][0].lower()}{first['msg'][1:]}") from None
    if not references:
        raise _RowError("references: none, so that nothing can be measured")
    return references


def _place(reference: _Reference, contexts: Sequence[Context], document: Document) -> Place:
    content, start, end = reference.content, reference.start_index, reference.end_index
    found = [context.place(content, start) for context in contexts if content and end == start + len(content)]
    place = next((place for place in found if place is not None), None)
    if place is None:
        raise _RowError(f"the reference {content[:60]!r} is not at {start}:{end} of {document.id!r}")
    visible = visible_part(document, place.span.start, place.span.end)
    if visible is None:
        raise _RowError(f"the reference at {start}:{end} of {document.id!r} is blank")
    return visible


def _grouped(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples, each with its group: named after the place where its evidence, or its neighbours', begins."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    spans = sorted((place.span, number) for number, e in enumerate(examples) for (place,) in e.evidence)
    near: list[tuple[int, int]] = []
    reached = 0
    for (one, number), (other, following) in pairwise(spans):
        reached = max(reached, one.end)
        if one.doc_id != other.doc_id:
            reached = 0
        elif other.start < reached + NEAR:
            near.append((number, following))
    links = coo_array(([1] * len(near), ([a for a, _ in near], [b for _, b in near])), shape=(len(examples),) * 2)
    labels = connected_components(links, directed=False)[1].tolist()
    names: dict[int, str] = {}
    for span, number in spans:
        names.setdefault(labels[number], f"{span.doc_id}@{span.start}")
    return tuple(replace(example, group=names[label]) for example, label in zip(examples, labels, strict=True))
