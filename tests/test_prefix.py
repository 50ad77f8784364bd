from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.errors import RagwrightError
from programs.prefix import NEEDS_LM, PREFIXES, prefixes
from programs.splitting import split
from programs.types import Chunk, Document, Span

NAMES = st.sampled_from(["", "Rhine", "The Rhine", "Source", "Source  of\nit", "ラインの川", "# odd"])


def chunk_of(text: str, *headings: str) -> Chunk:
    return Chunk("d#0-1", Span("d", 0, len(text)), text, headings=headings)


def prefix(kind: str, title: str, chunk: Chunk) -> str:
    (only,) = prefixes(Document("d", chunk.text, title), [chunk], kind)
    return only


@pytest.mark.parametrize(
    ("kind", "title", "chunk", "expected"),
    [
        ("none", "Rhine", chunk_of("It begins.", "Rhine", "Source"), ""),
        ("title", "Rhine", chunk_of("It begins.", "Rhine", "Source"), "Rhine\n"),
        ("title", "", chunk_of("It begins.", "Source"), ""),
        ("title", " The\n Rhine ", chunk_of("It begins."), "The Rhine\n"),
        ("title", "Rhine", chunk_of("Rhine, the river."), ""),
        ("title", "Rhine", chunk_of("## Rhine\n\nA river."), ""),
        ("title", "Rhine", chunk_of("Rhineland lies there."), "Rhine\n"),
        ("headings", "Rhine", chunk_of("It begins."), "Rhine\n"),
        ("headings", "Rhine", chunk_of("It begins.", "Course", "Source"), "Rhine > Course > Source\n"),
        ("headings", "Rhine", chunk_of("It begins.", "Rhine", "Source"), "Rhine > Source\n"),
        ("headings", "Rhine", chunk_of("## Source\n\nIt begins.", "Rhine", "Source"), "Rhine\n"),
        ("headings", "Rhine", chunk_of("# Rhine\n\nA river.", "Rhine"), ""),
        ("headings", "", chunk_of("It begins.", "Course", "Source"), "Course > Source\n"),
        ("headings", "", chunk_of("It begins."), ""),
    ],
)
def test_prefix_says_what_the_chunk_does_not(kind: str, title: str, chunk: Chunk, expected: str) -> None:
    assert prefix(kind, title, chunk) == expected


@settings(deadline=None, derandomize=True)
@given(kind=st.sampled_from(sorted(PREFIXES.keys() - NEEDS_LM)), title=NAMES, headings=st.lists(NAMES), text=NAMES)
def test_prefix_is_empty_or_one_line(kind: str, title: str, headings: list[str], text: str) -> None:
    line = prefix(kind, title, chunk_of(text or "x", *headings))
    assert line == "" or (line.strip() and line.count("\n") == 1 and line.endswith("\n"))
    parts = line.rstrip("\n").split(" > ")
    assert len(parts) == len(set(parts))


def test_prefixes_come_in_the_order_of_the_chunks_and_change_none() -> None:
    document = Document("d", "# Rhine\n\nA river.\n\n## Source\n\nIn the Alps.\n\nIt is cold there.", "Rhine")
    chunks = split(document, "markdown", 11, 0.0)
    before = list(chunks)
    assert prefixes(document, chunks, "headings") == ["", "Rhine\n", "Rhine > Source\n"]
    assert chunks == before and prefixes(document, [], "title") == []


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RagwrightError, match="'magic' is unknown; choose one of none, title, headings, summary"):
        prefixes(Document("d", "text"), [], "magic")


@pytest.mark.parametrize("kind", sorted(NEEDS_LM))
def test_a_kind_that_needs_a_language_model_is_not_made_without_one(kind: str) -> None:
    assert kind in PREFIXES
    with pytest.raises(RagwrightError, match="'summary' needs a language model"):
        prefixes(Document("d", "text"), [], kind)
