"""From a file's characters to the canonical text of a document, and its title.

The canonical text is what every offset refers to. A change of what these functions return moves offsets, so it comes
with a new `EXTRACTOR_VERSION`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

from programs.headings import headings

EXTRACTOR_VERSION = "1"

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_MARKERS = {"- ", *("#" * level + " " for level in range(1, 7))}
_LINES = {"br", "dd", "dt", "li", "option", "tr"}
_PARAGRAPHS = {
    *("address", "article", "aside", "blockquote", "body", "details", "div", "dl", "fieldset", "figcaption", "figure"),
    *("footer", "form", "header", "hr", "main", "ol", "p", "section", "summary", "table", "tbody", "thead", "ul"),
}
_SKIPPED = {"button", "canvas", "iframe", "nav", "noscript", "object", "script", "select", "style", "svg", "template"}


def clean(text: str) -> str:
    """Make `text` canonical: no byte order mark, line ends as LF, U+FFFD for NUL and lone surrogates.

    Unicode is not normalized, so that what is quoted from the document is found in it.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return _UNSAFE.sub("\ufffd", text)


def extract_plain(text: str) -> tuple[str, str]:
    """The text itself; plain text has no title."""
    return text, ""


def extract_markdown(text: str) -> tuple[str, str]:
    """The text itself and its first heading."""
    found = headings(text)
    return text, found[0].title if found else ""


def extract_html(text: str) -> tuple[str, str]:
    """What a reader sees, with headings as `#` lines and preformatted text fenced, and the page's title.

    Scripts, styles, navigation and controls are left out. The title is `<title>`, or else the first heading.
    """
    page = _Page()
    page.feed(text)
    page.close()
    body = re.sub(r"[ \t]+\n", "\n", "".join(page.parts))
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    title = " ".join(page.title.split())
    return body, title or extract_markdown(body)[1]


EXTRACTORS: dict[str, Callable[[str], tuple[str, str]]] = {
    ".md": extract_markdown,
    ".markdown": extract_markdown,
    ".txt": extract_plain,
    ".html": extract_html,
    ".htm": extract_html,
}


class _Page(HTMLParser):
    """Collects the visible text of a page, block by block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title = ""
        self._inside_title = False
        self._preformatted = False
        self._skipped = ""
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped:
            self._depth += tag == self._skipped
        elif tag in _SKIPPED:
            self._skipped, self._depth = tag, 1
        elif tag == "title":
            self._inside_title = True
        else:
            self._open(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # `<svg/>` opens nothing, so it must not start a skip that nothing ends.
        if not self._skipped and tag not in _SKIPPED:
            self._open(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._depth -= tag == self._skipped
            self._skipped = self._skipped if self._depth else ""
        elif tag == "title":
            self._inside_title = False
        elif tag == "pre" and self._preformatted:
            self._preformatted = False
            self.parts.append("\n```\n\n")
        elif tag in _HEADINGS or tag in _PARAGRAPHS:
            self._break("\n\n")

    def handle_data(self, data: str) -> None:
        if self._skipped:
            return
        if self._inside_title:
            self.title += data
        elif self._preformatted:
            self.parts.append(data)
        else:
            self._flow(data)

    def _open(self, tag: str) -> None:
        if self._preformatted:
            self.parts.extend(["\n"] if tag == "br" else [])
        elif tag in _HEADINGS:
            self._break("\n\n")
            self.parts.append("#" * int(tag[1]) + " ")
        elif tag == "pre":
            self._break("\n\n")
            self._preformatted = True
            self.parts.append("```\n")
        elif tag in _PARAGRAPHS:
            self._break("\n\n")
        elif tag in _LINES:
            self._break("\n")
            self.parts.extend(["- "] if tag == "li" else [])
        elif tag in ("td", "th") and not self._at_line_start():
            self.parts.append(" | ")

    def _flow(self, data: str) -> None:
        words = re.sub(r"[ \t\n\f]+", " ", data)
        if not self.parts or self.parts[-1][-1] in " \n":
            words = words.lstrip(" ")
        self.parts.extend([words] if words else [])

    def _break(self, line_ends: str) -> None:
        # A block at the very start of a list item or heading goes on in the marker's line.
        if self.parts and not self._preformatted and self.parts[-1] not in _MARKERS:
            self.parts.append(line_ends)

    def _at_line_start(self) -> bool:
        return not self.parts or self.parts[-1].endswith("\n")
