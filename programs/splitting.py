"""Splitting documents into chunks: consecutive spans of at most `chunk_size` tokens, with exact offsets."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import pairwise

from programs.boundaries import (
    Measure,
    Range,
    fixed_pieces,
    markdown_pieces,
    recursive_pieces,
    sentence_pieces,
    whole_pieces,
)
from programs.errors import RagwrightError
from programs.headings import heading_path
from programs.semantic import semantic_pieces
from programs.tokens import count_tokens, tokenized
from programs.types import Chunk, Document, Span

SPLITTER_VERSION = "2"
MAX_OVERLAP = 0.9

Counter = Callable[[str], int]
Splitter = Callable[[str, int, Measure], list[Range]]

# Each takes a text, the largest size and the measure of its parts. The ranges that it returns ascend, neither begin nor
# end with white space, leave out nothing else, and hold the size; `whole` alone does not.
SPLITTERS: dict[str, Splitter] = {
    "fixed": fixed_pieces,
    "recursive": recursive_pieces,
    "sentence": sentence_pieces,
    "markdown": markdown_pieces,
    "semantic": semantic_pieces,
    "whole": whole_pieces,
}

# How far back an overlap may reach, in characters a token; ordinary text has three to five.
_CHARACTERS_PER_TOKEN = 8
_WORD_START = re.compile(r"(?<!\S)\S")


def split(
    document: Document, splitter: str, chunk_size: int, chunk_overlap: float, counter: Counter = count_tokens
) -> list[Chunk]:
    """Split a document into chunks that cover it but for white space at their ends.

    The text is cut into pieces of `chunk_size` less the overlap, and each piece is extended backwards over whole words
    of the preceding text, by at most the overlap.

    Args:
        document: Its text is taken as it is.
        splitter: A name in `SPLITTERS`.
        chunk_size: Largest chunk, in tokens. Only a single character with more tokens than this exceeds it, and the
            splitter `whole`, which makes each document one chunk.
        chunk_overlap: Share of `chunk_size` that a chunk may repeat of the text before it, in [0, 0.9].
        counter: Counts the tokens of a text.

    Returns:
        Chunks in the order of their starts (their ends ascend too); none for a blank document. The id of a chunk is
        `doc_id#start-end`. A chunk's headings are those at its start; one that it begins with is among them.

    Raises:
        RagwrightError: The splitter is unknown or a number is out of range.
    """
    check_splitting(splitter, chunk_size, chunk_overlap)
    text = document.text
    count = _measure(text, counter)
    overlap = round(chunk_size * chunk_overlap)
    size = max(1, chunk_size - overlap)
    pieces = SPLITTERS[splitter](text, size, count)
    if overlap and len(pieces) > 1:
        neighbours = pairwise(pieces)
        extended = (_extended(text, before, piece, overlap, chunk_size, count) for (_, before), piece in neighbours)
        pieces = _without_contained([pieces[0], *extended])
    return [_chunk(document, start, end, count(start, end)) for start, end in pieces]


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


def _measure(text: str, counter: Counter) -> Measure:
    """What counts the tokens of the text's parts."""
    if counter is count_tokens:
        return tokenized(text).count
    return lambda start, end: counter(text[start:end])


def _chunk(document: Document, start: int, end: int, tokens: int) -> Chunk:
    text = document.text
    span = Span(document.id, start, end)
    path = heading_path(text, start)
    return Chunk(f"{document.id}#{start}-{end}", span, text[start:end], document.title, path, tokens)


def _extended(text: str, before: int, piece: Range, overlap: int, size: int, count: Measure) -> Range:
    """The piece with the end of the text up to `before`: at most `overlap` tokens, and at most `size` in all.

    It begins at a word; where no whole word fits, at any character.
    """
    start, end = piece

    def fits(earlier: int) -> bool:
        return count(earlier, before) <= overlap and count(earlier, end) <= size

    earliest = max(0, before - overlap * _CHARACTERS_PER_TOKEN)
    words = [match.start() for match in _WORD_START.finditer(text, earliest, before)]
    inside_word = range(words[-1] + 1 if words else earliest, before)
    for starts in (words, inside_word):
        first = bisect_left(starts, True, key=fits)
        if first < len(starts):
            return starts[first], end
    return start, end


def _without_contained(pieces: Iterable[Range]) -> list[Range]:
    """The pieces without those that lie wholly in the next one."""
    kept: list[Range] = []
    for piece in pieces:
        while kept and kept[-1][0] >= piece[0]:
            kept.pop()
        kept.append(piece)
    return kept
