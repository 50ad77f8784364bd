"""What is put before a chunk's text where it is indexed, so that it is found by what it stands under.

A prefix is never part of the chunk: its span and its own text stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from programs.errors import RagwrightError
from programs.types import Chunk, Document

# The kinds that a language model writes; `prefixes` makes the others.
NEEDS_LM = frozenset({"summary"})

_BETWEEN = " > "


def prefixes(document: Document, chunks: Sequence[Chunk], kind: str) -> list[str]:
    """The prefix of each chunk, in order; empty, or one line with its line end.

    Args:
        document: What the chunks were cut from.
        chunks: Its chunks, in any order.
        kind: A name in `PREFIXES`, but for those in `NEEDS_LM`.

    Raises:
        RagwrightError: The kind is unknown or needs a language model.
    """
    if kind not in PREFIXES:
        raise RagwrightError(f"context_prefix: {kind!r} is unknown; choose one of {', '.join(PREFIXES)}.")
    if kind in NEEDS_LM:
        raise RagwrightError(f"context_prefix: {kind!r} needs a language model to write it; none was given.")
    lines = [_BETWEEN.join(PREFIXES[kind](document, chunk)) for chunk in chunks]
    return [f"{line}\n" if line else "" for line in lines]


def _none(document: Document, chunk: Chunk) -> list[str]:
    return []


def _title(document: Document, chunk: Chunk) -> list[str]:
    return _unsaid([document.title], chunk)


def _headings(document: Document, chunk: Chunk) -> list[str]:
    """Title and headings, each once: a text's first heading is often its title."""
    return _unsaid([document.title, *chunk.headings], chunk)


def _unsaid(names: Sequence[str], chunk: Chunk) -> list[str]:
    """The names, each once and on one line, without blank ones and the one that the chunk itself begins with."""
    lines = dict.fromkeys(" ".join(name.split()) for name in names)
    return [line for line in lines if line and not _begins_with(chunk.text, line)]


def _begins_with(text: str, name: str) -> bool:
    """Whether a text begins with a name, be it as a heading."""
    beginning = text.lstrip("# \t")
    return beginning.startswith(name) and not beginning[len(name) : len(name) + 1].isalnum()


# Name -> the parts of a chunk's prefix.
PREFIXES: dict[str, Callable[[Document, Chunk], list[str]]] = {
    "none": _none,
    "title": _title,
    "headings": _headings,
    "summary": _none,
}
