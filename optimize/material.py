"""What an import reads from somebody else's data before it is written down as ours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from optimize.example import Example, Fact, Place
from programs.extraction import clean
from programs.types import Document, Span


@dataclass(frozen=True)
class Material:
    """Documents, and all examples as they came, duplicates among them."""

    documents: tuple[Document, ...]
    examples: tuple[Example, ...]


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
