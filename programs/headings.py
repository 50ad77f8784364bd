"""Headings of a markdown text, as the CommonMark parser sees them: not inside code fences, comments or front matter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


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


def headings(text: str) -> list[Heading]:
    """All headings at the top level of `text` (not those inside quotes and lists), in order."""
    from markdown_it import MarkdownIt

    front_matter = _FRONT_MATTER.match(text)
    skipped = front_matter.end() if front_matter else 0
    body = text[skipped:]
    line_starts = [skipped, *(skipped + end for end in accumulate(len(line) + 1 for line in body.split("\n")))]
    # Without the inline rule only the blocks are parsed, which is all that is asked here.
    tokens = MarkdownIt("commonmark").disable("inline").parse(body)
    found = []
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            first, last = token.map
            end = min(line_starts[last], len(text))
            found.append(Heading(line_starts[first], end, int(token.tag[1:]), content.content))
    return found
