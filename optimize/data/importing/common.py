"""Data sets that others made, written down as ours: whole, or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.data.dataset import load_dataset, write_dataset
from optimize.data.importing.beir import read_beir
from optimize.data.importing.chroma_chunking import read_chroma_chunking
from optimize.data.importing.huggingface import read_huggingface
from optimize.data.importing.material import Material
from optimize.data.importing.squad import read_squad
from optimize.data.splits import split_examples
from programs.errors import RagwrightError
from programs.types import Document

UNKNOWN = "see the source"


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote.

    Attributes:
        path: The data set's folder.
        documents: Number of documents.
        questions: Split -> number of questions.
        with_evidence: Questions whose evidence is known.
        duplicates: Questions left out since the same one was there already.
        notes: What else was left out, with counts.
    """

    path: Path
    documents: int
    questions: Mapping[str, int]
    with_evidence: int
    duplicates: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.questions.items())
        return (
            f"{self.path}: {self.documents} documents; questions: {counts}; {self.with_evidence} with evidence; "
            + "; ".join((f"{self.duplicates} duplicates left out", *self.notes))
        )


def import_squad(file: Path, out: Path, seed: int, *, license: str = UNKNOWN, source: str = UNKNOWN) -> ImportSummary:
    """Import a file in the format of SQuAD 1.1 or 2.0: an article is a document, its answer offsets are the evidence.

    Args:
        file: The JSON file.
        out: The folder to make.
        seed: Of the split by document.
        license: Of the data, for the card.
        source: Where the data come from, for the card.

    Raises:
        ProblemsError: Every answer that is not where the file says, with article and question.
        RagwrightError: `out` exists, or `file` is not SQuAD.
    """
    _refuse_existing(out)
    return _write(out, read_squad(file), seed, {"license": license, "source": source, "format": "SQuAD"})


def import_huggingface(
    name: str,
    out: Path,
    columns: Mapping[str, str],
    split: str | None,
    revision: str | None,
    seed: int,
    *,
    license: str = UNKNOWN,
    source: str | None = None,
) -> ImportSummary:
    """Import what Hugging Face `datasets` reads: each distinct context becomes a document.

    Args:
        name: A hub id, `owner/name` or `owner/name:config`; or a local file or folder (jsonl, json, csv, parquet).
        out: The folder to make.
        columns: Our `question`, `answers` and `context`, and if wished `id` and `title`, each with the name of its
            column. Answers are a string, a list of strings, or SQuAD's `{"text": […], "answer_start": […]}`; an empty
            list says that the context does not answer.
        split: One of the data set's splits; None takes all of them together, as they are split anew by document.
        revision: Of a hub data set.
        seed: Of the split by document.
        license: Of the data, for the card.
        source: Where the data come from, for the card; by default `name`, with its revision.

    Raises:
        ProblemsError: Every row that cannot be used.
        RagwrightError: `out` exists, or the data cannot be read or lack a column.
    """
    _refuse_existing(out)
    origin = source or (f"{name}@{revision}" if revision else name)
    card = {"license": license, "source": origin, "format": "Hugging Face datasets"}
    return _write(out, read_huggingface(name, columns, split, revision), seed, card)


def import_beir(folder: Path, out: Path, seed: int, *, license: str = UNKNOWN, source: str = UNKNOWN) -> ImportSummary:
    """Import a folder in BEIR's layout: its relevant documents are evidence as a whole, and answers are not known.

    Args:
        folder: With `corpus.jsonl`, `queries.jsonl` and `qrels/`.
        out: The folder to make.
        seed: Of the split, where there are not all three of BEIR's own.
        license: Of the data, for the card.
        source: Where the data come from, for the card.

    Raises:
        ProblemsError: Everything that is missing or cannot be used, with file and line.
        RagwrightError: `out` exists, or there is no such folder.
    """
    _refuse_existing(out)
    return _write(out, read_beir(folder), seed, {"license": license, "source": source, "format": "BEIR"})


def import_chroma_chunking(
    folder: Path, out: Path, seed: int, *, license: str = UNKNOWN, source: str = UNKNOWN
) -> ImportSummary:
    """Import a folder laid out as Chroma's chunking evaluation: its references are evidence; answers are not known.

    Args:
        folder: With `questions_df.csv` and `corpora/`.
        out: The folder to make.
        seed: Of the split by stretches of the documents.
        license: Of the data, for the card.
        source: Where the data come from, for the card.

    Raises:
        ProblemsError: Every question that cannot be used, with file and line.
        RagwrightError: `out` exists, or a file is missing or in another format.
    """
    _refuse_existing(out)
    card = {"license": license, "source": source, "format": "Chroma chunking evaluation"}
    return _write(out, read_chroma_chunking(folder), seed, card)


def _refuse_existing(out: Path) -> None:
    """Make sure that nothing is there yet.

    Raises:
        RagwrightError: Something is.
    """
    if out.exists():
        raise RagwrightError(f"{out}: already exists; name a new folder, or remove this one first.")


def _write(out: Path, material: Material, seed: int, card: Mapping[str, Any]) -> ImportSummary:
    """Write a data set aside, read it back as a check of every span, and rename it.

    Raises:
        RagwrightError: The questions cannot be split by document.
    """
    documents = {document.id: document for document in material.documents}
    splits = material.splits or split_examples(material.examples, documents, seed)
    kept = [example for examples in splits.values() for example in examples]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as aside:
        folder = Path(aside) / out.name
        folder.mkdir()
        _write_corpus(folder / "corpus.jsonl", material.documents)
        write_dataset(folder, {**card, "seed": seed}, splits, _about(material))
        load_dataset(folder)
        folder.rename(out)
    return ImportSummary(
        path=out,
        documents=len(documents),
        questions={name: len(examples) for name, examples in splits.items()},
        with_evidence=sum(bool(example.evidence) for example in kept),
        duplicates=len(material.examples) - len(kept),
        notes=material.notes,
    )


def _about(material: Material) -> str:
    """The card's text."""
    return "\n\n".join((material.about, *(f"Note: {note}." for note in material.notes)))


def _write_corpus(file: Path, documents: Iterable[Document]) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        for document in documents:
            line: dict[str, Any] = {"id": document.id, "title": document.title, "text": document.text}
            if document.metadata:
                line["metadata"] = dict(document.metadata)
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
