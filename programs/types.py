"""The data that travels through a program. All of it is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range of characters in a document's canonical text.

    Attributes:
        doc_id: The document's id.
        start: Offset of the first character, counted in Unicode code points from 0.
        end: Offset after the last character; always above `start`.
    """

    doc_id: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span needs 0 <= start < end, got {self.start!r} and {self.end!r} in {self.doc_id!r}")

    def __len__(self) -> int:
        return self.end - self.start

    def overlap(self, other: Span) -> int:
        """Number of characters that both spans cover; 0 when they lie in different documents."""
        if self.doc_id != other.doc_id:
            return 0
        return max(0, min(self.end, other.end) - max(self.start, other.start))


@dataclass(frozen=True, slots=True)
class Document:
    """One document in its canonical text: what the extractor made of the file, cleaned. Offsets refer to it."""

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """An indexed piece of a document: `text` is exactly the document's text at `span`.

    Attributes:
        id: `doc_id#start-end`.
        span: Where it lies.
        text: The document's text there.
        title: The document's title.
        headings: The headings that it stands under, the highest first.
        tokens: Length of `text` by the counting tokenizer.
    """

    id: str
    span: Span
    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as retrieved for one question.

    Attributes:
        chunk: The chunk.
        score: The last stage's score; higher is better, comparable only within one list.
    """

    chunk: Chunk
    score: float

    @property
    def text(self) -> str:
        """The chunk's text."""
        return self.chunk.text

    @property
    def span(self) -> Span:
        """Where the passage lies."""
        return self.chunk.span
