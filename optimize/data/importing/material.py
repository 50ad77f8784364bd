"""What an import reads from somebody else's data before it is written down as ours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from optimize.data.example import Example, Fact, Place
from programs.errors import RagwrightError
from programs.extraction import clean
from programs.types import Document, Span


@dataclass(frozen=True)
class Material:
    """What was read, duplicates among it.

    Attributes:
        documents: The corpus.
        examples: All of them, as they came.
        splits: Split -> its examples, where the source has the three splits itself; else the examples are split anew.
        about: Sentences for the card: what became of the source.
        notes: What was left out, with counts.
    """

    documents: tuple[Document, ...]
    examples: tuple[Example, ...]
    splits: Mapping[str, tuple[Example, ...]] | None = None
    about: str = "Imported; split by source document."
    notes: tuple[str, ...] = ()


def unique_slug(title: str, taken: set[str]) -> str:
    """An id made of a title's letters and digits, numbered where it is taken; it is added to `taken`."""
    stem = "-".join(re.findall(r"\w+", unicodedata.normalize("NFC", title).casefold().replace("_", " "))) or "document"
    slug, number = stem, 1
    while slug in taken:
        number += 1
        slug = f"{stem}-{number}"
    taken.add(slug)
    return slug


@dataclass(frozen=True)
class Context:
    """A text that became a document or a part of one.

    Attributes:
        text: As it came: the offsets of its source refer to it.
        doc_id: The document that it went into.
        offset: Where its canonical text begins there.
    """

    text: str
    doc_id: str
    offset: int = 0

    def place(self, answer: str, start: int) -> Place | None:
        """The place of an answer that should begin at `start` of the text; None where it does not."""
        if start < 0 or not self.text.startswith(answer, start):
            return None
        first = self.offset + len(clean(self.text[:start]))
        quote = clean(answer)
        return Place(Span(self.doc_id, first, first + len(quote)), quote)

    def find(self, answer: str) -> Place | None:
        """The place of an answer's first occurrence that is no part of a longer word or number."""
        found = re.search(rf"(?<![A-Za-z0-9]){re.escape(answer)}(?![A-Za-z0-9])", self.text)
        return self.place(answer, found.start()) if found else None


def as_evidence(places: Iterable[Place]) -> tuple[Fact, ...]:
    """One fact with each distinct place as an alternative; nothing where there is no place."""
    fact = tuple(dict.fromkeys(places))
    return (fact,) if fact else ()


def whole_text(document: Document) -> Place | None:
    """The whole of a document, but for the white space at its ends, which no chunk holds; None where it is blank."""
    return visible_part(document, 0, len(document.text))


def visible_part(document: Document, start: int, end: int) -> Place | None:
    """A stretch of a document without the white space at its ends; None where nothing is left."""
    quote = document.text[start:end]
    start += len(quote) - len(quote.lstrip())
    quote = quote.strip()
    return Place(Span(document.id, start, start + len(quote)), quote) if quote else None


def read_utf8(file: Path) -> str:
    """A file's characters, line ends as they are.

    Raises:
        RagwrightError: It is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RagwrightError(f"{file}: not UTF-8 at byte {error.start}; save the file as UTF-8.") from None
