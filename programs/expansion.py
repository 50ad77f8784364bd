"""Expansion: small chunks are found, and larger passages around them are handed to the LM."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

from programs.errors import RagwrightError
from programs.headings import heading_path
from programs.ranking import Positions, Ranking
from programs.splitting import split
from programs.tokens import TEXTS_KEPT, count_tokens, tokenized
from programs.types import Chunk, Document, Passage, Span

PARENT_CHUNKS = 4
"""Length of a parent piece, in chunk sizes."""


class Expander(Protocol):
    """Turns the chunks of a ranking into the passages that the LM reads. Safe to call from many threads.

    There are at most as many passages as chunks. Every chunk of the ranking lies in one of them, and no passage reaches
    into another document. What is computed once is kept in the expander, so one serves all rankings of an index.
    """

    def spans(self, positions: Positions) -> list[Span]:
        """Where the passages lie, best first.

        Args:
            positions: Places in the index's chunks, best first, each at most once.
        """
        ...

    def passages(self, ranking: Ranking) -> tuple[Passage, ...]:
        """The passages, best first; they lie at `spans(ranking.positions)`."""
        ...

    def tokens(self, spans: Iterable[Span]) -> int:
        """Number of tokens of the passages that lie at `spans`, by the counting tokenizer; each is counted alone.

        Args:
            spans: As `spans` returns them.
        """
        ...


class Unwidened:
    """Passages are the chunks as they are, whether or not they overlap."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks

    def spans(self, positions: Positions) -> list[Span]:
        """The spans of the chunks."""
        return [self._chunks[position].span for position in positions.tolist()]

    def passages(self, ranking: Ranking) -> tuple[Passage, ...]:
        """The chunks with their scores."""
        pairs = zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True)
        return tuple(Passage(self._chunks[position], score) for position, score in pairs)

    def tokens(self, spans: Iterable[Span]) -> int:
        """The sum of the chunks' tokens."""
        return sum(self._tokens[span] for span in spans)

    @cached_property
    def _tokens(self) -> dict[Span, int]:
        return {chunk.span: chunk.tokens for chunk in self._chunks}


@dataclass(frozen=True, slots=True)
class Area:
    """A stretch of a document around a chunk.

    Attributes:
        span: Where it lies; the chunk lies in it.
        reach: Offset of the next character after it that is no white space, or the document's length.
    """

    span: Span
    reach: int

    def joined(self, other: Area) -> Area:
        """The area of both; `other` begins in this one or right after it."""
        if other.span.end <= self.span.end:
            return self
        return Area(Span(self.span.doc_id, self.span.start, other.span.end), other.reach)


Widen = Callable[[str, Sequence[Span]], Iterable[Sequence[Span]]]
"""From a document's text and the spans of its chunks, in order, to the spans that each chunk is handed over with."""


class Widened:
    """Passages are the areas from the beginning to the end of a chunk and of what it is handed over with.

    Areas that overlap, or have only white space between them, become one passage, so that nothing is read twice: it
    takes the place and the score of the best of its chunks.

    Args:
        chunks: Those of the index.
        documents: Their documents by id.
        widen: Called once for each document of which a chunk is asked for.
    """

    def __init__(self, chunks: Sequence[Chunk], documents: Mapping[str, Document], widen: Widen) -> None:
        self._chunks, self._documents, self._widen = chunks, documents, widen
        self._areas: dict[int, Area] = {}
        self._tokens: dict[Span, int] = {}
        self._positions: dict[str, list[int]] = {}
        for position, chunk in enumerate(chunks):
            self._positions.setdefault(chunk.span.doc_id, []).append(position)

    def spans(self, positions: Positions) -> list[Span]:
        """The spans of the areas, overlapping ones joined."""
        return [area.span for _, area in self._ranked(positions)]

    def passages(self, ranking: Ranking) -> tuple[Passage, ...]:
        """The areas as passages, overlapping ones joined."""
        scores = ranking.scores.tolist()
        return tuple(Passage(self._chunk(area), scores[rank]) for rank, area in self._ranked(ranking.positions))

    def tokens(self, spans: Iterable[Span]) -> int:
        """The sum of the passages' tokens, each counted at the first use of its span."""
        return sum(map(self._count, spans))

    def _ranked(self, positions: Positions) -> list[tuple[int, Area]]:
        """Disjoint areas and the ranks, from 0, of the best chunk in each, best first."""
        placed = []
        for rank, position in enumerate(positions.tolist()):
            area = self._areas.get(position) or self._area(position)
            placed.append((area.span.doc_id, area.span.start, rank, area))
        placed.sort()
        ranked: list[tuple[int, Area]] = []
        for doc_id, start, rank, area in placed:
            if ranked:
                best, last = ranked[-1]
                if start <= last.reach and doc_id == last.span.doc_id:
                    ranked[-1] = min(rank, best), last.joined(area)
                    continue
            ranked.append((rank, area))
        ranked.sort()
        return ranked

    def _area(self, position: int) -> Area:
        """The area of one chunk; those of the other chunks of its document are computed along with it."""
        doc_id = self._chunks[position].span.doc_id
        text, positions = self._documents[doc_id].text, self._positions[doc_id]
        spans = [self._chunks[other].span for other in positions]
        for other, span, pieces in zip(positions, spans, self._widen(text, spans), strict=True):
            self._areas[other] = _around(text, (span, *pieces))
        return self._areas[position]

    def _chunk(self, area: Area) -> Chunk:
        span = area.span
        document = self._documents[span.doc_id]
        path, text = heading_path(document.text, span.start), document.text[span.start : span.end]
        chunk_id = f"{document.id}#{span.start}-{span.end}"
        return Chunk(chunk_id, span, text, document.title, path, self._count(span))

    def _count(self, span: Span) -> int:
        tokens = self._tokens.get(span)
        if tokens is None:
            text = self._documents[span.doc_id].text
            tokens = self._tokens[span] = tokenized(text).count(span.start, span.end)
        return tokens


def _around(text: str, spans: Sequence[Span]) -> Area:
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    reach = end
    while reach < len(text) and text[reach].isspace():
        reach += 1
    return Area(Span(spans[0].doc_id, start, end), reach)


def _neighbours(text: str, chunks: Sequence[Span]) -> Iterable[Sequence[Span]]:
    return [chunks[max(0, at - 1) : at + 2] for at in range(len(chunks))]


@dataclass(frozen=True, slots=True)
class _Parent:
    """The piece of a document, cut as its chunks are but larger and without overlap, that holds a chunk's middle."""

    splitter: str
    chunk_size: int

    def __call__(self, text: str, chunks: Sequence[Span]) -> Iterable[Sequence[Span]]:
        pieces = _pieces(text, self.splitter, PARENT_CHUNKS * self.chunk_size)
        starts = [start for start, _ in pieces]
        for chunk in chunks:
            # A middle in the white space between two pieces belongs to the one before it.
            start, end = pieces[bisect_right(starts, (chunk.start + chunk.end) // 2) - 1]
            yield (Span(chunk.doc_id, start, end),)


@lru_cache(maxsize=TEXTS_KEPT)
def _pieces(text: str, splitter: str, size: int) -> list[tuple[int, int]]:
    """Where the pieces lie; kept for the next configuration."""
    chunks = split(Document("", text), splitter, size, 0.0, count_tokens)
    return [(chunk.span.start, chunk.span.end) for chunk in chunks]


Factory = Callable[[Sequence[Chunk], Mapping[str, Document], str, int], Expander]

EXPANSIONS: dict[str, Factory] = {
    "none": lambda chunks, documents, splitter, chunk_size: Unwidened(chunks),
    "neighbours": lambda chunks, documents, splitter, chunk_size: Widened(chunks, documents, _neighbours),
    "parent": lambda chunks, documents, splitter, chunk_size: Widened(chunks, documents, _Parent(splitter, chunk_size)),
}
"""`none`: the chunk. `neighbours`: with the chunks before and after it. `parent`: with the piece around it."""


def open_expander(
    name: str, chunks: Sequence[Chunk], documents: Mapping[str, Document], splitter: str, chunk_size: int
) -> Expander:
    """The expander of an index; nothing is computed yet.

    Args:
        name: A name in `EXPANSIONS`.
        chunks: All of the index, in its order: those of one document by their starts.
        documents: At least those that the chunks come from, by id.
        splitter: What the chunks were made by.
        chunk_size: And their largest size, in tokens.

    Raises:
        RagwrightError: The name is unknown.
    """
    if name not in EXPANSIONS:
        raise RagwrightError(f"expansion: {name!r} is unknown; choose one of {', '.join(EXPANSIONS)}.")
    return EXPANSIONS[name](chunks, documents, splitter, chunk_size)
