"""Where a splitter cuts a text: each function covers the text with consecutive pieces of about `size` tokens.

A piece may come out a little too long, because the tokens of joined parts are not exactly the sum of their tokens;
`programs.splitting` mends that, trims white space and adds the overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from programs.headings import headings

Counter = Callable[[str], int]
Range = tuple[int, int]

# With the full-width marks of Chinese and Japanese, which no space follows.
_SENTENCE_ENDS = [". ", "! ", "? ", "\u3002", "\uff01", "\uff1f"]
_PAUSES = ["; ", ": ", ", ", " \u2014 ", "\uff1b", "\uff1a", "\uff0c", "\u3001"]


def recursive_pieces(text: str, size: int, count: Counter) -> list[Range]:
    """Cut at paragraphs; what is too long at lines, then at sentences, pauses and spaces."""
    return _ranges(_recursive_chunker(size, count), text)


def sentence_pieces(text: str, size: int, count: Counter) -> list[Range]:
    """Cut between sentences and at line ends only; a sentence that is too long stays whole here."""
    return _ranges(_sentence_chunker(size, count), text)


def markdown_pieces(text: str, size: int, count: Counter) -> list[Range]:
    """Cut at headings; neighbouring sections of one parent share a piece where they fit, long ones are cut inside."""
    return _cut(_sections(text, count), text, size, count)


@dataclass(frozen=True, slots=True)
class _Section:
    """From one heading to the next of any level; what comes before the first heading has level 0."""

    start: int
    end: int
    level: int
    tokens: int


def _sections(text: str, count: Counter) -> list[_Section]:
    starts, levels = [0], [0]
    body_start = 0
    for heading in headings(text):
        # A heading with nothing under it is no use alone: it is taken as the first line of what follows.
        if len(starts) == 1 or text[body_start : heading.start].strip():
            starts.append(heading.start)
            levels.append(heading.level)
        body_start = heading.end
    ends = [*starts[1:], len(text)]
    spans = zip(starts, ends, levels, strict=True)
    return [_Section(start, end, level, count(text[start:end])) for start, end, level in spans]


def _cut(sections: Sequence[_Section], text: str, size: int, count: Counter) -> list[Range]:
    """Pieces of a section and of all that lies under it."""
    if _tokens(sections) <= size:
        return [(sections[0].start, sections[-1].end)]
    if len(sections) == 1:
        start, end = sections[0].start, sections[0].end
        return [(start + low, start + high) for low, high in recursive_pieces(text[start:end], size, count)]
    pieces: list[Range] = []
    together: list[_Section] = []
    for group in _groups(sections):
        if together and _tokens(together) + _tokens(group) > size:
            pieces.append((together[0].start, together[-1].end))
            together = []
        if _tokens(group) > size:
            pieces.extend(_cut(group, text, size, count))
        else:
            together.extend(group)
    return [*pieces, (together[0].start, together[-1].end)] if together else pieces


def _groups(sections: Sequence[_Section]) -> list[list[_Section]]:
    """The first section alone, then each of its children with what lies under it."""
    groups = [[sections[0]]]
    for section in sections[1:]:
        if len(groups) == 1 or section.level <= groups[-1][0].level:
            groups.append([section])
        else:
            groups[-1].append(section)
    return groups


def _tokens(sections: Sequence[_Section]) -> int:
    return sum(section.tokens for section in sections)


def _ranges(chunker: Any, text: str) -> list[Range]:
    return [(chunk.start_index, chunk.end_index) for chunk in chunker.chunk(text)]


@lru_cache(maxsize=64)
def _recursive_chunker(size: int, count: Counter) -> Any:
    from chonkie import RecursiveChunker, RecursiveLevel, RecursiveRules

    levels = [
        RecursiveLevel(delimiters=["\n\n"]),
        RecursiveLevel(delimiters=["\n"]),
        RecursiveLevel(delimiters=_SENTENCE_ENDS),
        RecursiveLevel(delimiters=_PAUSES),
        RecursiveLevel(whitespace=True),
    ]
    # Short parts are joined by their tokens; joining them by characters first would make parts that are too long.
    rules, counter = RecursiveRules(levels), _without_outer_spaces(count)
    return RecursiveChunker(counter, chunk_size=size, rules=rules, min_characters_per_chunk=1)


@lru_cache(maxsize=64)
def _sentence_chunker(size: int, count: Counter) -> Any:
    from chonkie import SentenceChunker

    return SentenceChunker(_without_outer_spaces(count), chunk_size=size, delim=[*_SENTENCE_ENDS, "\n"])


def _without_outer_spaces(count: Counter) -> Counter:
    # In running text the space before a word belongs to the word's token; counted alone, a trailing space adds one.
    return lambda piece: count(piece.strip(" "))
