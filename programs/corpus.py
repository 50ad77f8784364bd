"""A corpus: the documents that questions are asked about, read from a folder or from one JSON lines file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from programs.errors import Problem, ProblemsError, RagwrightError
from programs.extraction import EXTRACTOR_VERSION, EXTRACTORS, clean
from programs.types import Document

if TYPE_CHECKING:
    from programs.brought_vectors import BroughtVectors

MAX_DOCUMENT_BYTES = 10_000_000
_KEYS = {"id", "text", "title", "metadata"}


@dataclass(frozen=True)
class Corpus:
    """Documents with text, in the order of their ids.

    Attributes:
        documents: At least one; ids are unique and no text is blank.
        warnings: What was left out, one line each.
        brought: Vectors that came with the documents; None where there are none.
    """

    documents: tuple[Document, ...]
    warnings: tuple[str, ...] = ()
    brought: BroughtVectors | None = None

    @classmethod
    def from_documents(cls, documents: Iterable[Document], warnings: Iterable[str] = ()) -> Self:
        """Sort the documents by id and leave out the blank ones, with a warning each.

        Raises:
            RagwrightError: Two documents have the same id, or none has text.
        """
        ordered = sorted(documents, key=lambda document: document.id)
        for one, other in pairwise(ordered):
            if one.id == other.id:
                raise RagwrightError(f"two documents have the id {one.id!r}; ids must be unique in a corpus.")
        blank = [f"{document.id}: no text, left out" for document in ordered if not document.text.strip()]
        kept = tuple(document for document in ordered if document.text.strip())
        if not kept:
            raise RagwrightError(f"the corpus has no text: {len(ordered)} document(s), all of them empty.")
        return cls(kept, (*warnings, *blank))

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits over all of every document, the vectors, and the version of the extractor."""
        digest = hashlib.sha256(f"extractor {EXTRACTOR_VERSION}\n".encode())
        if self.brought is not None:
            digest.update(self.brought.fingerprint.encode())
        for document in self.documents:
            content = [document.id, document.title, document.text, dict(document.metadata)]
            digest.update(json.dumps(content, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:12]

    def document(self, doc_id: str) -> Document:
        """The document with this id.

        Raises:
            RagwrightError: There is none.
        """
        if doc_id not in self._by_id:
            raise RagwrightError(f"the corpus has no document {doc_id!r}; it has {len(self.documents)} others.")
        return self._by_id[doc_id]

    @cached_property
    def _by_id(self) -> dict[str, Document]:
        return {document.id: document for document in self.documents}


def find_corpus(dataset: Path) -> Path:
    """Where the corpus of a data-set folder is: its `corpus/` or its `corpus.jsonl`.

    Raises:
        RagwrightError: Neither is there, or both are.
    """
    folder, file = dataset / "corpus", dataset / "corpus.jsonl"
    if folder.is_dir() and file.is_file():
        raise RagwrightError(f"{dataset}: has both corpus/ and corpus.jsonl; keep one of them.")
    if folder.is_dir():
        return folder
    if file.is_file():
        return file
    raise RagwrightError(f"{dataset}: has no corpus; put documents into {folder}{os.sep} or write {file}.")


def load_corpus(path: Path) -> Corpus:
    """Read all documents under a folder, or all lines of a `.jsonl` file.

    A folder is read with its subfolders; hidden files and files of other kinds than `EXTRACTORS` names are passed over,
    and a document's id is its path relative to the folder, with forward slashes.

    Raises:
        ProblemsError: Files or lines that cannot be used, all of them at once.
        RagwrightError: There is nothing to read.
    """
    problems: list[Problem] = []
    if path.is_dir():
        documents = list(_read_folder(path, problems))
        nothing = f"{path}: no documents found; files that are read end in {', '.join(EXTRACTORS)}."
    elif path.is_file() and path.suffix == ".jsonl":
        documents = list(_read_lines(path, problems))
        nothing = f"{path}: has no lines."
    else:
        state = "is neither a folder nor a .jsonl file" if path.exists() else "does not exist"
        raise RagwrightError(f"{path}: {state}; a corpus is a folder of documents or a corpus.jsonl.")
    if problems:
        raise ProblemsError(problems)
    if not documents:
        raise RagwrightError(nothing)
    corpus = Corpus.from_documents(documents)
    return corpus if path.is_dir() else replace(corpus, brought=_brought(path, documents))


def _brought(file: Path, documents: Iterable[Document]) -> BroughtVectors | None:
    from programs.brought_vectors import BroughtVectors

    return BroughtVectors.read(file.parent, [document.id for document in documents])


def _read_folder(folder: Path, problems: list[Problem]) -> Iterator[Document]:
    for file in _visible_files(folder, problems):
        doc_id = file.relative_to(folder).as_posix()
        try:
            document = _read_file(file, doc_id)
        except _UnusableError as error:
            problems.append(Problem(repr(str(file))[1:-1], error.message, error.mend))
        else:
            yield document


def _visible_files(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"cannot be listed: {error.strerror}", "change its permissions"))

    for place, folders, files in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(place, name)
            if not name.startswith(".") and file.suffix.lower() in EXTRACTORS and file.is_file():
                yield file


def _read_file(file: Path, doc_id: str) -> Document:
    _check_name(doc_id)
    _check_size(file.stat().st_size)
    try:
        data = file.read_bytes()
    except PermissionError:
        raise _UnusableError("may not be read", "change its permissions or remove it") from None
    text, title = EXTRACTORS[file.suffix.lower()](clean(_decode(data)))
    return Document(doc_id, clean(text), clean(title) or file.stem)


def _read_lines(file: Path, problems: list[Problem]) -> Iterator[Document]:
    first_lines: dict[str, int] = {}
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                document = _read_line(line)
                if document.id in first_lines:
                    at = first_lines[document.id]
                    raise _UnusableError(f"the id {document.id!r} is already in line {at}", "make ids unique")
            except _UnusableError as error:
                problems.append(Problem(f"{file}:{number}", error.message, error.mend))
            else:
                first_lines[document.id] = number
                yield document


def _read_line(line: bytes) -> Document:
    try:
        record = json.loads(_decode(line))
    except json.JSONDecodeError as error:
        raise _UnusableError(f"not JSON: {error.msg} at column {error.colno}", "one object a line") from None
    except RecursionError:
        raise _UnusableError("not usable: nested too deeply", "one flat object a line") from None
    if not isinstance(record, dict):
        raise _UnusableError(f"a {type(record).__name__} instead of an object", "write one object a line")
    if unknown := sorted(set(record) - _KEYS):
        raise _UnusableError(f"unknown key {unknown[0]!r}", f"known keys: {', '.join(sorted(_KEYS))}")
    doc_id = _field(record, "id", str)
    _check_name(doc_id)
    text = _field(record, "text", str)
    _check_size(len(text.encode("utf-8", "surrogatepass")))
    title = clean(_field(record, "title", str, ""))
    return Document(doc_id, clean(text), title, _field(record, "metadata", dict, {}))


def _field(record: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = record.get(key, default)
    if value is None and default is None:
        raise _UnusableError(f"the key {key!r} is missing", f"add it as a {kind.__name__}")
    if not isinstance(value, kind):
        raise _UnusableError(f"{key!r} must be a {kind.__name__}, got {value!r:.80}", "correct it")
    return value


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start} ({data[error.start]:#04x})"
        raise _UnusableError(f"not UTF-8 at {place}", "save it as UTF-8, for example with iconv -t UTF-8") from None


def _check_name(doc_id: str) -> None:
    if not doc_id.strip():
        raise _UnusableError(f"the id {doc_id!r} is blank", "give every document an id")
    try:
        doc_id.encode("utf-8")
    except UnicodeEncodeError:
        raise _UnusableError(f"the name {doc_id!r} is not valid Unicode", "rename it") from None


def _check_size(size: int) -> None:
    if size > MAX_DOCUMENT_BYTES:
        limit = f"a document may have at most {MAX_DOCUMENT_BYTES / 1e6:g} MB"
        raise _UnusableError(f"has {size / 1e6:.1f} MB; {limit}", "split it into several documents")


class _UnusableError(Exception):
    """Why one document cannot be used; its place is known to the caller."""

    def __init__(self, message: str, mend: str) -> None:
        self.message = message
        self.mend = mend
        super().__init__(message)
