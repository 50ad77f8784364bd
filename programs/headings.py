"""Headings of a markdown text, as the CommonMark parser sees them: not inside code fences, comments or front matter."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from programs.tokens import TEXTS_KEPT

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
# A text without such a line has no heading; most plain texts have none.
_HEADING_MARK = re.compile(r"^ {0,3}[#=-]", re.MULTILINE)
_LINE_END = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Heading:
    """One heading.

    Attributes:
        start: Offset of the first character of its line.
        end: Offset after its last line, line end included.
        level: 1 for the highest, 6 for the lowest.
        title: The heading's text in markdown.
    """

    start: int
    end: int
    level: int
    title: str


@lru_cache(maxsize=TEXTS_KEPT)
def headings(text: str) -> tuple[Heading, ...]:
    """All headings at the top level of `text` (not those inside quotes and lists), in order; kept for the next call."""
    if not _HEADING_MARK.search(text.replace("\r", "\n")):
        return ()
    from markdown_it import MarkdownIt

    front_matter = _FRONT_MATTER.match(text)
    skipped = front_matter.end() if front_matter else 0
    line_starts = [skipped, *(line_end.end() for line_end in _LINE_END.finditer(text, skipped)), len(text)]
    # Without the inline rule only the blocks are parsed, which is all that is asked here.
    tokens = MarkdownIt("commonmark").disable("inline").parse(text[skipped:])
    found = []
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            first, last = token.map
            found.append(Heading(line_starts[first], line_starts[last], int(token.tag[1:]), content.content))
    return tuple(found)


def heading_path(text: str, position: int) -> tuple[str, ...]:
    """The headings that a place in `text` stands under, the highest first, each on one line.

    A place inside a heading stands under it.
    """
    starts, paths = _paths(text)
    return paths[bisect_right(starts, position)]


@lru_cache(maxsize=TEXTS_KEPT)
def _paths(text: str) -> tuple[list[int], list[tuple[str, ...]]]:
    """Where the headings start, and the path before the first of them and from each on."""
    open_headings: list[Heading] = []
    paths: list[tuple[str, ...]] = [()]
    for heading in headings(text):
        open_headings = [above for above in open_headings if above.level < heading.level] + [heading]
        titles = (" ".join(above.title.split()) for above in open_headings)
        paths.append(tuple(title for title in titles if title))
    return [heading.start for heading in headings(text)], paths
