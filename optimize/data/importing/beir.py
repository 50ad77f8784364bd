"""BEIR's layout (Thakur et al. 2021): a corpus, queries, and judgements of which documents are relevant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optimize.data.dataset import SPLITS, normalized_question
from optimize.data.example import Example
from optimize.data.importing.material import Material, whole_text
from optimize.data.splits import distinct_questions
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.extraction import clean
from programs.types import Document

QRELS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
"""Our split -> its file in `qrels/`."""

_ABOUT = (
    "Imported from BEIR's layout. Answers are not known. Each relevant document is a fact of its own, and its whole "
    "text the place: over documents that are not split, recall at k is BEIR's, if titles are read with the texts there "
    "as here (`context_prefix: title`). Grades of relevance are not kept."
)
_OWN = "The splits are BEIR's own, so that questions of two splits may share documents."
_ANEW = "Split anew: questions that share a relevant document are in one split."

Judged = Mapping[str, list[str]]
"""Query id -> ids of its relevant documents."""


def read_beir(folder: Path) -> Material:
    """Read a folder with `corpus.jsonl`, `queries.jsonl` and one or more of `qrels/{train,dev,test}.tsv`.

    A document with a score above 0 is one fact, its whole text the place, so that recall at k over documents that are
    not split is BEIR's. Relevance has no grades here: nDCG is BEIR's only where all scores above 0 are the same. A
    document that has nothing but a title has it as its text. BEIR's splits are kept if all three have questions.

    Raises:
        ProblemsError: Every line that cannot be used and every file that is missing, with its place.
        RagwrightError: There is no such folder.
    """
    if not folder.is_dir():
        raise RagwrightError(f"{folder}: no such folder; one with corpus.jsonl, queries.jsonl and qrels/ is needed.")
    problems: list[Problem] = []
    documents = _documents(folder / "corpus.jsonl", problems)
    queries = _queries(folder / "queries.jsonl", problems)
    judged = _judged(folder / "qrels", documents, queries, problems)
    if problems:
        raise ProblemsError(problems)
    own = {split: _examples(judged.get(split, {}), queries, documents) for split in SPLITS}
    splits = _once(own)
    kept = splits if all(splits.values()) else None
    examples = tuple(example for split in SPLITS for example in own[split])
    if kept is None:
        examples = _examples(_merged(judged.values()), queries, documents)
    return Material(
        documents=tuple(document for document in documents.values() if document.text.strip()),
        examples=examples,
        splits=kept,
        about=f"{_ABOUT} {_ANEW if kept is None else _OWN}",
        notes=_notes(documents, len(queries) - len({example.id for example in examples})),
    )


def _documents(file: Path, problems: list[Problem]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for place, record in _new_records(file, problems):
        text, title = record.get("text"), record.get("title") or ""
        metadata = record.get("metadata") or {}
        if not isinstance(text, str) or not isinstance(title, str) or not isinstance(metadata, dict):
            problems.append(Problem(place, "'text' and 'title' must be strings, 'metadata' an object"))
        text, title = clean(str(text)), clean(str(title)).strip()
        # Cleaned as a whole, since what it holds may be nested.
        metadata = json.loads(clean(json.dumps(metadata, ensure_ascii=False)))
        found[record["_id"]] = Document(record["_id"], text if text.strip() else title, title, metadata)
    return found


def _queries(file: Path, problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, record in _new_records(file, problems):
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            problems.append(Problem(place, f"'text' must be a non-empty string, got {text!r:.80}"))
        found[record["_id"]] = clean(str(text)).strip()
    return found


def _new_records(file: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that have an id of their own, each with its place."""
    lines: dict[str, int] = {}
    for number, line in _lines(file, problems):
        place = f"{file}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(Problem(place, f"not JSON: {error.msg} at column {error.colno}", "one object a line"))
            continue
        except RecursionError:
            problems.append(Problem(place, "nested too deeply", "one object a line"))
            continue
        key = record.get("_id") if isinstance(record, dict) else None
        if not isinstance(key, str) or not key.strip() or key != clean(key):
            problems.append(Problem(place, f"an object with an '_id' is needed, got {line.strip():.80}"))
        elif key in lines:
            problems.append(Problem(place, f"the _id {key!r} is already in line {lines[key]}", "make ids unique"))
        else:
            lines[key] = number
            yield place, record


def _lines(file: Path, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, numbered from 1."""
    if not file.is_file():
        problems.append(Problem(str(file), "missing", "BEIR's layout has corpus.jsonl, queries.jsonl and qrels/"))
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                problems.append(Problem(f"{file}:{number}", f"not UTF-8 at byte {error.start}", "save it as UTF-8"))
                continue
            if text.strip():
                yield number, text


def _judged(
    folder: Path, documents: Mapping[str, Document], queries: Mapping[str, str], problems: list[Problem]
) -> dict[str, Judged]:
    """Split -> its judgements, for each file that is there."""
    files = {split: folder / name for split, name in QRELS.items() if (folder / name).is_file()}
    if not files:
        problems.append(Problem(str(folder), f"has none of {', '.join(QRELS.values())}", "add the judgements"))
    return {split: _relevant(file, documents, queries, problems) for split, file in files.items()}


def _relevant(
    file: Path, documents: Mapping[str, Document], queries: Mapping[str, str], problems: list[Problem]
) -> Judged:
    judged: dict[str, list[str]] = {}
    scores: dict[tuple[str, str], int] = {}
    for number, line in _lines(file, problems):
        fields = [field.strip() for field in line.split("\t")]
        if number == 1 and not _is_judgement(fields):
            continue
        if number == 1 or not _is_judgement(fields):
            needed = "a header" if number == 1 else "query-id, corpus-id and a whole score, separated by tabs,"
            problems.append(Problem(f"{file}:{number}", f"{needed} is needed, got {line!r:.80}"))
            continue
        query, document, score = fields[0], fields[1], int(fields[2])
        # Where a file is missing altogether, that is the one thing to say.
        if queries and query not in queries:
            problems.append(Problem(f"{file}:{number}", f"no query {query!r} in queries.jsonl"))
        if documents and document not in documents:
            problems.append(Problem(f"{file}:{number}", f"no document {document!r} in corpus.jsonl"))
        if scores.setdefault((query, document), score) != score:
            earlier = scores[query, document]
            problems.append(Problem(f"{file}:{number}", f"{document!r} has the score {earlier} for {query!r} above"))
        if score > 0:
            judged.setdefault(query, []).append(document)
    return judged


def _is_judgement(fields: list[str]) -> bool:
    return len(fields) == 3 and fields[2].removeprefix("-").isdecimal()


def _merged(judged: Iterable[Judged]) -> Judged:
    """The judgements of all files together."""
    merged: dict[str, list[str]] = {}
    for part in judged:
        for query, documents in part.items():
            merged.setdefault(query, []).extend(documents)
    return merged


def _examples(judged: Judged, queries: Mapping[str, str], documents: Mapping[str, Document]) -> tuple[Example, ...]:
    """A question for each query that has a relevant document with text."""
    examples = []
    for query, relevant in judged.items():
        places = [whole_text(documents[doc_id]) for doc_id in dict.fromkeys(relevant)]
        facts = tuple((place,) for place in places if place is not None)
        if facts:
            examples.append(Example(query, queries[query], None, facts))
    return tuple(examples)


def _once(splits: Mapping[str, tuple[Example, ...]]) -> dict[str, tuple[Example, ...]]:
    """Each question in one split only, the last that has it: so the test stays BEIR's."""
    asked: set[str] = set()
    kept: dict[str, tuple[Example, ...]] = {}
    for split in reversed(SPLITS):
        distinct = distinct_questions(splits[split])
        kept[split] = tuple(example for example in distinct if normalized_question(example.question) not in asked)
        asked |= {normalized_question(example.question) for example in kept[split]}
    return {split: kept[split] for split in SPLITS}


def _notes(documents: Mapping[str, Document], unjudged: int) -> tuple[str, ...]:
    blank = sum(not document.text.strip() for document in documents.values())
    notes = {f"{unjudged} queries without relevant documents left out": unjudged}
    notes[f"{blank} documents without text left out, also where they are relevant"] = blank
    return tuple(note for note, count in notes.items() if count)
