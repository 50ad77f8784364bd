"""Splitting documents into chunks: consecutive spans of at most `chunk_size` tokens, with exact offsets."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from programs.boundaries import Counter, Range, markdown_pieces, recursive_pieces, sentence_pieces
from programs.errors import RagwrightError
from programs.types import Chunk, Document, Span

SPLITTER_VERSION = "1"
MAX_OVERLAP = 0.9

Splitter = Callable[[str, int, Counter], list[Range]]

SPLITTERS: dict[str, Splitter] = {
    "recursive": recursive_pieces,
    "sentence": sentence_pieces,
    "markdown": markdown_pieces,
}

# How far back an overlap may reach, in characters a token; ordinary text has three to five.
_CHARACTERS_PER_TOKEN = 8
_HEADING_LINE = re.compile(r"#{1,6}[ \t].*")
_WORD_START = re.compile(r"(?<!\S)\S")


def split(
    document: Document, splitter: str, chunk_size: int, chunk_overlap: float, count_tokens: Counter
) -> list[Chunk]:
    """Split a document into chunks that cover it but for white space at their ends.

    The text is cut into pieces of `chunk_size` less the overlap, and each piece is extended backwards over whole words
    of the preceding text, by at most the overlap.

    Args:
        document: Its text is taken as it is.
        splitter: A name in `SPLITTERS`.
        chunk_size: Largest chunk, in tokens. Only a single character with more tokens than this exceeds it.
        chunk_overlap: Share of `chunk_size` that a chunk may repeat of the text before it, in [0, 0.9].
        count_tokens: Counts the tokens of a text.

    Returns:
        Chunks in the order of their starts (their ends ascend too); none for a blank document. The id of a chunk is
        `doc_id#start-end`.

    Raises:
        RagwrightError: The splitter is unknown or a number is out of range.
    """
    check_splitting(splitter, chunk_size, chunk_overlap)
    text = document.text
    overlap = round(chunk_size * chunk_overlap)
    size = max(1, chunk_size - overlap)
    rough = _trimmed(text, SPLITTERS[splitter](text, size, count_tokens))
    fitting = [part for piece in rough for part in _fitting(text, piece, size, count_tokens)]
    pieces = list(_with_headings(text, fitting, size, count_tokens))
    if overlap:
        pieces = _without_contained(_overlapping(text, pieces, overlap, chunk_size, count_tokens))
    return [_chunk(document, start, end) for start, end in pieces]


def check_splitting(splitter: str, chunk_size: int, chunk_overlap: float) -> None:
    """Refuse settings that `split` cannot use.

    Raises:
        RagwrightError: The splitter is unknown or a number is out of range.
    """
    if splitter not in SPLITTERS:
        raise RagwrightError(f"splitter: {splitter!r} is unknown; choose one of {', '.join(SPLITTERS)}.")
    if chunk_size < 1:
        raise RagwrightError(f"chunk_size: {chunk_size!r} is too small; a chunk has at least 1 token.")
    if not 0 <= chunk_overlap <= MAX_OVERLAP:
        raise RagwrightError(f"chunk_overlap: {chunk_overlap!r} is not a share in [0, {MAX_OVERLAP}] of chunk_size.")


def _chunk(document: Document, start: int, end: int) -> Chunk:
    chunk_id = f"{document.id}#{start}-{end}"
    return Chunk(chunk_id, Span(document.id, start, end), document.text[start:end], document.title)


def _trimmed(text: str, pieces: Iterable[Range]) -> Iterator[Range]:
    """The pieces without white space at their ends; blank ones vanish."""
    for start, end in pieces:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            start += len(piece) - len(piece.lstrip())
            yield start, start + len(stripped)


def _fitting(text: str, piece: Range, size: int, count: Counter) -> Iterator[Range]:
    """The piece itself, or where it is too long, parts of about equal length that are not."""
    start, end = piece
    tokens = count(text[start:end])
    if tokens <= size or end - start == 1:
        yield piece
        return
    # Somewhat above the equal share, so that uneven sentences do not leave a tiny rest.
    target = min(size, math.ceil(tokens / math.ceil(tokens / size) * 1.2))
    parts = [(start + low, start + high) for low, high in recursive_pieces(text[start:end], target, count)]
    if len(parts) < 2:
        yield from _trimmed(text, _cut_anywhere(text, piece, size, count))
        return
    for part in _trimmed(text, parts):
        yield from _fitting(text, part, size, count)


def _with_headings(text: str, pieces: Iterable[Range], size: int, count: Counter) -> Iterator[Range]:
    """The pieces with each lone heading joined to what follows, which is cut shorter where both do not fit."""
    heading: Range | None = None
    for piece in pieces:
        # One token less, as the tokens of the joined text may be one more than the sum.
        room = size - count(text[heading[0] : piece[0]]) - 1 if heading else 0
        if heading and 2 * room >= size:
            first, *others = _fitting(text, piece, room, count)
            yield from _fitting(text, (heading[0], first[1]), size, count)
            yield from others
            heading = None
            continue
        if heading:
            yield heading
        heading = piece if _HEADING_LINE.fullmatch(text, *piece) else None
        if not heading:
            yield piece
    if heading:
        yield heading


def _cut_anywhere(text: str, piece: Range, size: int, count: Counter) -> Iterator[Range]:
    """Cut a text that offers no place to cut into the longest parts that fit, of at least one character each."""
    start, end = piece
    while start < end:
        stop = _longest_fitting(text, start, end, size, count)
        yield start, stop
        start = stop


def _longest_fitting(text: str, start: int, end: int, size: int, count: Counter) -> int:
    def too_long(at: int) -> bool:
        return count(text[start:at]) > size

    length = 1
    while start + length < end and not too_long(start + length):
        length *= 2
    stops = range(start + max(1, length // 2), min(end, start + length) + 1)
    return stops[max(0, bisect_left(stops, True, key=too_long) - 1)]


def _overlapping(text: str, pieces: Sequence[Range], overlap: int, chunk_size: int, count: Counter) -> Iterator[Range]:
    """Each piece extended backwards by at most `overlap` tokens and to at most `chunk_size` tokens in all."""
    for start, end in pieces:
        starts = _earlier_starts(text, start, overlap, count)
        yield next((earlier for earlier in starts if count(text[earlier:end]) <= chunk_size), start), end


def _earlier_starts(text: str, start: int, overlap: int, count: Counter) -> Sequence[int]:
    """Where an overlap may begin, earliest first: at words; where there is no space in reach, at any character."""
    reach = range(max(0, start - overlap * _CHARACTERS_PER_TOKEN), start)
    earliest = bisect_left(reach, True, key=lambda at: count(text[at:start].strip()) <= overlap)
    words = [match.start() for match in _WORD_START.finditer(text, start - len(reach) + earliest, start)]
    return words or [at for at in reach[earliest:] if not text[at:start].isspace()]


def _without_contained(pieces: Iterable[Range]) -> list[Range]:
    """The pieces without those that lie wholly in the next one."""
    kept: list[Range] = []
    for piece in pieces:
        while kept and kept[-1][0] >= piece[0]:
            kept.pop()
        kept.append(piece)
    return kept
