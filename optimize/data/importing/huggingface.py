"""Rows of question, answers and context, read by Hugging Face `datasets` from its hub or from local files."""

from __future__ import annotations

import csv
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimize.data.example import Example, Place
from optimize.data.importing.material import Context, Material, as_evidence, unique_slug
from optimize.data.splits import FEW_DOCUMENTS
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.extraction import clean
from programs.types import Document

REQUIRED, OPTIONAL = ("question", "answers", "context"), ("id", "title")
FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""Ending of a local file -> builder of `datasets`."""

Row = Mapping[str, Any]


def read_huggingface(name: str, columns: Mapping[str, str], split: str | None, revision: str | None) -> Material:
    """Read all rows; each distinct context is a document.

    Evidence is where an answer occurs in its context: at its `answer_start`, else first as a word of its own. An
    answer that does not occur has none.

    Raises:
        ProblemsError: Every row that cannot be used.
        RagwrightError: The data cannot be read, or lack a column.
    """
    _check_names(columns)
    reader = _Reader(name)
    with tempfile.TemporaryDirectory() as cache:
        for part, rows in _load(name, split, revision, cache).items():
            _check_columns(name, columns, rows.column_names)
            reader.read(part, rows.select_columns(sorted(set(columns.values()))), columns)
    return reader.material()


def _check_names(columns: Mapping[str, str]) -> None:
    known = ", ".join(REQUIRED + OPTIONAL)
    if unknown := sorted(set(columns) - {*REQUIRED, *OPTIONAL}):
        raise RagwrightError(f"columns: unknown name {unknown[0]!r}; known names: {known}.")
    if missing := [name for name in REQUIRED if name not in columns]:
        raise RagwrightError(f"columns: say which column is {missing[0]!r}, as {missing[0]}=NAME.")


def _check_columns(name: str, columns: Mapping[str, str], there: list[str]) -> None:
    missing = [f"{theirs!r} (for {ours})" for ours, theirs in columns.items() if theirs not in there]
    if missing:
        raise RagwrightError(f"{name}: no column {', '.join(missing)}; columns: {', '.join(there)}.")


def _load(name: str, split: str | None, revision: str | None, cache: str) -> dict[str, Any]:
    """Split -> rows. What is read from local files is prepared in `cache`, since it is needed once only."""
    import datasets

    options: dict[str, Any] = {"split": split}
    path = Path(name)
    if path.exists():
        source, options = name, {**options, "cache_dir": cache, **_local_options(path)}
        if path.is_file():
            source, options = FORMATS[path.suffix.lower()], {**options, "data_files": str(path)}
    elif path.suffix.lower() in FORMATS or path.is_absolute() or name.count("/") > 1 or name.startswith("."):
        raise RagwrightError(f"{name}: no such file or folder.")
    else:
        source, _, config = name.partition(":")
        options |= {"name": config or None, "revision": revision}
    with _quiet():
        try:
            loaded = datasets.load_dataset(source, **options)
        except ConnectionError:
            raise RagwrightError(f"{name}: cannot reach the Hugging Face hub; connect, or name a local file.") from None
        except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise RagwrightError(f"{name}: `datasets` cannot read it: {reason:.300}") from None
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {split or "train": loaded}


def _local_options(path: Path) -> dict[str, Any]:
    """What `datasets` must be told of local files.

    Raises:
        RagwrightError: They are of no kind, or of several kinds.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.*"))
    kinds = {FORMATS[file.suffix.lower()] for file in files if file.suffix.lower() in FORMATS}
    if len(kinds) != 1:
        found = f"files of several kinds ({', '.join(sorted(kinds))})" if kinds else "nothing that can be read"
        raise RagwrightError(f"{path}: {found}; give one file, or a folder of one kind: {', '.join(FORMATS)}.")
    if kinds != {"csv"}:
        return {}
    from datasets import Features, Value

    header = next(file for file in files if file.suffix.lower() == ".csv")
    with header.open(encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader(lines), [])
    # Everything is text, as it stands there: `NA` and `None` are answers, and 3.10 is not 3.1.
    return {"features": Features(dict.fromkeys(names, Value("string"))), "keep_default_na": False}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub client's retries and warnings off the terminal: what matters is raised."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _RowError(ValueError):
    """A row cannot be used."""


class _Reader:
    """Collects documents and examples row by row."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.documents: dict[str, Document] = {}
        self.examples: list[tuple[Example, str]] = []
        self.problems: list[Problem] = []
        self._taken: set[str] = set()

    def read(self, part: str, rows: Any, columns: Mapping[str, str]) -> None:
        """Take the rows of one split.

        Raises:
            RagwrightError: It has no answers at all: they are kept secret.
        """
        answered, problems = False, len(self.problems)
        for number, row in enumerate(rows, start=1):
            ours = {name: row[column] for name, column in columns.items()}
            try:
                example, doc_id = self._example(ours, f"{part}-{number}")
            except _RowError as error:
                self.problems.append(Problem(f"{self.name}: {part}, row {number}", str(error)))
            else:
                self.examples.append((example, doc_id))
                answered = answered or bool(example.answers)
        if not answered and len(self.problems) == problems:
            raise RagwrightError(f"{self.name}: no question of the split {part!r} has an answer; choose another split.")

    def material(self) -> Material:
        """All that was read; with many documents each question declares its own as its group."""
        if self.problems:
            raise ProblemsError(self.problems)
        if len({example.id for example, _ in self.examples}) < len(self.examples):
            raise RagwrightError(f"{self.name}: ids repeat; leave out the column for `id`, and rows are numbered.")
        documents = tuple(self.documents.values())
        if len(documents) < FEW_DOCUMENTS:
            return Material(documents, tuple(example for example, _ in self.examples))
        return Material(documents, tuple(replace(example, group=doc_id) for example, doc_id in self.examples))

    def _example(self, row: Row, default_id: str) -> tuple[Example, str]:
        text = _text(row, "context")
        if text not in self.documents:
            title = str(row.get("title") or "").strip()
            doc_id = unique_slug(title or f"document {len(self.documents) + 1}", self._taken)
            self.documents[text] = Document(doc_id, clean(text), clean(title))
        doc_id = self.documents[text].id
        answers, starts = _answers(row["answers"])
        context = Context(text, doc_id)
        places = [_locate(context, answer, start) for answer, start in zip(answers, starts, strict=True)]
        evidence = as_evidence(place for place in places if place is not None)
        example_id = _text(row, "id") if "id" in row else default_id
        return Example(example_id, _text(row, "question").strip(), tuple(dict.fromkeys(answers)), evidence), doc_id


def _text(row: Row, name: str) -> str:
    value = row[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise _RowError(f"{name} must be text that is not blank, got {value!r:.80}")
    return value


def _answers(value: Any) -> tuple[list[str], list[int | None]]:
    """The answers and, where they are given, their offsets in the context."""
    starts: list[int | None] | None = None
    if isinstance(value, Mapping) and "text" in value:
        value, starts = value["text"], value.get("answer_start")
    listed = value if isinstance(value, list) else [value]
    answers = [_text({"an answer": answer}, "an answer") for answer in listed]
    if starts is not None and len(starts) != len(answers):
        raise _RowError(f"{len(answers)} answers and {len(starts)} values of answer_start")
    return answers, starts if starts is not None else [None] * len(answers)


def _locate(context: Context, answer: str, start: int | None) -> Place | None:
    if start is None:
        return context.find(answer)
    place = context.place(answer, start)
    if place is None:
        raise _RowError(f"the answer {answer!r} is not at answer_start {start}")
    return place
