"""Where a splitter cuts a text: each function covers the text with consecutive pieces of at most `size` tokens.

The pieces leave out nothing but white space at their ends. Places to cut come from patterns alone, so that every
language with spaces or with the full-width marks of Chinese and Japanese is served, and none needs a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise

from programs.headings import headings
from programs.tokens import TEXTS_KEPT, tokenized

# The number of tokens of a text's part, from its start to its end.
Measure = Callable[[int, int], int]
Range = tuple[int, int]

# Latin, Greek and Cyrillic.
_LOWER_CASE = r"a-z\u00df-\u00f6\u00f8-\u00ff\u03b1-\u03c9\u0430-\u044f"
# With the marks of Arabic, Urdu and Hindi.
_END_MARK = r"[.!?\u2026\u061f\u06d4\u0964]"
_CLOSING = r"[\"'\u201d\u2019\u00bb)\]]"
# The full-width marks of Chinese and Japanese, which no space follows.
_WIDE_END_MARK = r"[\u3002\uff01\uff1f]"
_WIDE_CLOSING = r"[\u300d\u300f\uff09\u201d\u2019]"
_NO_ABBREVIATION = r"(?<!\b\w\.)(?<!\b(?:Dr|Mr|Ms|St|vs)\.)(?<!\bMrs\.)"
_SENTENCE_END = (
    rf"(?:(?<={_END_MARK})|(?<={_END_MARK}{_CLOSING})){_NO_ABBREVIATION}\s++(?![{_LOWER_CASE}])"
    rf"|(?<={_WIDE_END_MARK})(?!{_WIDE_END_MARK}){_WIDE_CLOSING}{{0,2}}+\s*+"
)
# These begin at the first white space, so that a long blank stretch is looked at once and not from each of its lines.
_PARAGRAPH_END = r"(?<=\S)[^\S\n]*+\n[^\S\n]*+\n\s*+"
# A line that goes on in lower case was broken by an editor, not by its author.
_LINE_END = rf"(?<=\S)[^\S\n]*+\n\s*+(?![{_LOWER_CASE}])"
_PAUSE = r"(?<=[;:,\u060c\u061b])\s++|\s[\u2013\u2014]\s++|(?<=[\uff1b\uff1a\uff0c\u3001])"

_SENTENCES = re.compile(f"{_SENTENCE_END}|{_LINE_END}")
# From the best place to cut to the worst.
_LEVELS = [re.compile(places) for places in (_PARAGRAPH_END, _LINE_END, _SENTENCE_END, r"\n\s*+", _PAUSE, r"\s++")]
INSIDE_SENTENCES = 3
_SPACES = re.compile(r"\s*")
# A text of its own may have fewer tokens than it has inside another.
_SPARE = 4


def fixed_pieces(text: str, size: int, count: Measure) -> list[Range]:
    """Cut between tokens wherever a piece is full, whatever stands there."""
    return list(Cutter(text, size, count).windows((0, len(text))))


def recursive_pieces(text: str, size: int, count: Measure) -> list[Range]:
    """Cut at paragraphs; what is too long at lines, then at sentences, pauses and spaces."""
    return list(Cutter(text, size, count).cut((0, len(text))))


def sentence_pieces(text: str, size: int, count: Measure) -> list[Range]:
    """Cut between sentences and at line ends only; inside a sentence where it is too long alone."""
    cutter = Cutter(text, size, count)
    groups = cutter.packed(sentences(text))
    return [piece for group in groups for piece in cutter.cut(group, INSIDE_SENTENCES)]


def whole_pieces(text: str, size: int, count: Measure) -> list[Range]:
    """The text as one piece, whatever its size."""
    return list(trimmed(text, [(0, len(text))]))


def trimmed(text: str, pieces: Iterable[Range]) -> Iterator[Range]:
    """The pieces without white space at their ends; blank ones vanish."""
    for start, end in pieces:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            start += len(piece) - len(piece.lstrip())
            yield start, start + len(stripped)


class Cutter:
    """Cuts one text into pieces of at most `size` tokens, and leaves no heading without what follows it.

    Args:
        text: What is cut.
        size: Largest piece, in tokens. Only a single character with more tokens than this exceeds it.
        count: Measures parts of the text.
    """

    def __init__(self, text: str, size: int, count: Measure) -> None:
        self._text = text
        self._size = size
        self._count = count

    def packed(self, parts: Iterable[Range]) -> Iterator[Range]:
        """Neighbouring parts joined as long as they fit into one piece; what is too long alone stays so."""
        joined: Range | None = None
        for start, end in parts:
            if joined and self._fits(joined[0], end):
                joined = joined[0], end
                continue
            if joined:
                yield joined
            joined = start, end
        if joined:
            yield joined

    def cut(self, piece: Range, level: int = 0) -> Iterator[Range]:
        """The piece itself, or where it is too long, parts cut at the best of the places from that level on."""
        for start, end in trimmed(self._text, [piece]):
            if end - start == 1 or self._fits(start, end):
                yield start, end
            else:
                yield from self._cut_further((start, end), level)

    def _fits(self, start: int, end: int) -> bool:
        return self._count(start, end) <= self._size

    def _cut_further(self, piece: Range, level: int) -> Iterator[Range]:
        if level == len(_LEVELS):
            yield from self.windows(piece)
            return
        parts = list(_parts(self._text, piece, _LEVELS[level]))
        if len(parts) == 1:
            yield from self._cut_further(piece, level + 1)
            return
        for part in self.packed(parts):
            yield from self.cut(part, level + 1)

    def windows(self, piece: Range) -> Iterator[Range]:
        """The longest parts that fit, one after the other, cut between tokens; of at least one character each."""
        start, end = piece
        while (start := _next_character(self._text, start)) < end:
            stop = self._longest_fitting(start, end)
            yield from trimmed(self._text, [(start, stop)])
            start = stop

    def _longest_fitting(self, start: int, end: int) -> int:
        borders = tokenized(self._text).borders(start, self._size + _SPARE)
        stops = [stop for stop in borders if stop < end] + [min(end, borders[-1])]
        # Inside a token, where not even one fits.
        inside = range(start + 1, stops[0])
        return next((stop for stop in chain(reversed(stops), reversed(inside)) if self._fits(start, stop)), start + 1)


def sentences(text: str) -> list[Range]:
    """The text's sentences, of any size; a line end ends a sentence too."""
    return list(_parts(text, (0, len(text)), _SENTENCES))


def _parts(text: str, piece: Range, places: re.Pattern[str]) -> Iterator[Range]:
    """What lies between the places to cut."""
    start, end = piece
    kept = _after_headings(text)
    cuts = (place.end() for place in places.finditer(text, start, end))
    return trimmed(text, pairwise([start, *(cut for cut in cuts if cut not in kept), end]))


@lru_cache(maxsize=TEXTS_KEPT)
def _after_headings(text: str) -> frozenset[int]:
    """Where no cut is made, so that a heading is not left without what follows it."""
    return frozenset(_next_character(text, heading.end) for heading in headings(text))


def _next_character(text: str, position: int) -> int:
    """The first place from `position` on that is not white space."""
    spaces = _SPACES.match(text, position)
    assert spaces is not None
    return spaces.end()


@dataclass(frozen=True, slots=True)
class _Section:
    """From one heading to the next of any level; what comes before the first heading has level 0."""

    start: int
    end: int
    level: int


def markdown_pieces(text: str, size: int, count: Measure) -> list[Range]:
    """Cut at headings; neighbouring sections of one parent share a piece where they fit, long ones are cut inside."""
    cutter = Cutter(text, size, count)
    return [piece for group in _grouped(_sections(text), size, count) for piece in cutter.cut(group)]


def _sections(text: str) -> list[_Section]:
    starts, levels = [0], [0]
    body_start = 0
    for heading in headings(text):
        # A heading with nothing under it is no use alone: it is taken as the first line of what follows.
        if len(starts) == 1 or text[body_start : heading.start].strip():
            starts.append(heading.start)
            levels.append(heading.level)
        body_start = heading.end
    ends = [*starts[1:], len(text)]
    return [_Section(*section) for section in zip(starts, ends, levels, strict=True)]


def _grouped(sections: Sequence[_Section], size: int, count: Measure) -> Iterator[Range]:
    """What holds sections together that fit into one piece: all, or those under one parent."""
    start, end = sections[0].start, sections[-1].end
    if len(sections) == 1 or count(start, end) <= size:
        yield start, end
        return
    together: Range | None = None
    for family in _families(sections):
        start, end = family[0].start, family[-1].end
        if together and count(together[0], end) <= size:
            together = together[0], end
            continue
        if together:
            yield together
        together = None
        if count(start, end) <= size:
            together = start, end
        else:
            yield from _grouped(family, size, count)
    if together:
        yield together


def _families(sections: Sequence[_Section]) -> list[list[_Section]]:
    """The first section alone, then each of its children with what lies under it."""
    families = [[sections[0]]]
    for section in sections[1:]:
        if len(families) == 1 or section.level <= families[-1][0].level:
            families.append([section])
        else:
            families[-1].append(section)
    return families
