from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from programs.errors import RagwrightError
from programs.splitting import SPLITTERS, split
from programs.tokens import count_tokens, tokenized
from programs.types import Chunk, Document

PROSE = "The harbour was built in 1871. It cost more than anybody had said! Who paid for it? The city did, in the end. "
JAPANESE = "これは日本語の文章です。空白はありません。"
FRAGMENTS = [
    PROSE,
    "\n\n",
    "\n",
    "   ",
    "\r\n",
    "Dear Dr. Smith,\r\nwe met\r\n\r\nin U.S. waters.\r\n",
    "# Heading\n\n",
    "## Deeper heading\n",
    "Underlined\n==========\n",
    "```python\n# no heading\nfor x in range(3):\n    print(x)\n```\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    JAPANESE,
    "👩‍👩‍👧‍👦🏳️‍🌈🦛",
    "مرحبا بالعالم، هذا نص عربي؟ ",
    "e\u0301\u200b\u00a0\u2028",
    "<s> </s> ",
    " \u2581\u2581a",
    "longwordwithoutanyspace" * 5,
    "- item one\n- item two\n",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
)
# All but `whole`, which knows no size.
SIZED = [splitter for splitter in SPLITTERS if splitter != "whole"]


def chunks_of(text: str, splitter: str, size: int, overlap: float = 0.0) -> list[Chunk]:
    return split(Document("d", text, "title"), splitter, size, overlap)


@pytest.mark.parametrize("splitter", SPLITTERS)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(text=TEXTS, size=st.sampled_from([1, 4, 16, 64]), overlap=st.sampled_from([0.0, 0.1, 0.25, 0.9]))
@example(text="", size=16, overlap=0.0)
@example(text=" \n\t ", size=16, overlap=0.25)
@example(text="a\r# b\rc\r\n=\r", size=4, overlap=0.0)
def test_every_splitter_keeps_the_contract(splitter: str, text: str, size: int, overlap: float) -> None:
    chunks = chunks_of(text, splitter, size, overlap)
    covered = [False] * len(text)
    for chunk in chunks:
        start, end = chunk.span.start, chunk.span.end
        assert chunk.text == text[start:end] and chunk.text.strip() == chunk.text != ""
        assert chunk.id == f"d#{start}-{end}" and chunk.span.doc_id == "d" and chunk.title == "title"
        assert chunk.tokens == count_tokens(chunk.text)
        assert chunk.tokens <= size or len(chunk.text) == 1 or splitter == "whole"
        covered[start:end] = [True] * (end - start)
    assert all(character.isspace() for character, is_in in zip(text, covered, strict=True) if not is_in)
    starts, ends = [chunk.span.start for chunk in chunks], [chunk.span.end for chunk in chunks]
    assert starts == sorted(set(starts)) and ends == sorted(set(ends))
    for one, other in pairwise(chunks):
        assert count_tokens(text[other.span.start : one.span.end]) <= round(size * overlap)
    assert chunks_of(text, splitter, size, overlap) == chunks


@settings(deadline=None, max_examples=100, derandomize=True)
@given(text=TEXTS.filter(bool), data=st.data())
def test_parts_of_a_tokenized_text_are_measured_exactly(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert tokenized(text).count(start, end) == count_tokens(text[start:end])


def test_parts_that_end_between_tokens_are_measured_exactly() -> None:
    text = "".join(FRAGMENTS) + "unquestionably internationalised hippopotamuses, Donaudampfschifffahrt"
    for start in range(len(text)):
        for end in tokenized(text).borders(start, 8):
            assert tokenized(text).count(start, end) == count_tokens(text[start:end])


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_a_megabyte_without_a_space_is_cut_in_seconds(splitter: str) -> None:
    text = "ab1c" * 250_000
    began = time.process_time()
    chunks = chunks_of(text, splitter, 256, 0.1)
    assert time.process_time() - began < 10
    assert chunks[0].span.start == 0 and chunks[-1].span.end == len(text)
    if splitter != "whole":
        assert all(200 < chunk.tokens <= 256 for chunk in chunks[:-1])


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("text", ["a" + "\n" * 300_000 + "b", "a\n-" * 10_000, "A b. " * 10_000, "." * 50_000])
def test_monotonous_texts_are_cut_in_seconds(splitter: str, text: str) -> None:
    began = time.process_time()
    chunks_of(text, splitter, 256, 0.1)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_a_book_is_split_in_seconds(splitter: str) -> None:
    text = "\n\n".join(f"# Chapter {number}\n\n{PROSE * 8}" for number in range(250))
    began = time.process_time()
    chunks_of(text, splitter, 128, 0.1)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("splitter", ["fixed", "recursive", "sentence", "markdown"])
def test_chunks_are_well_filled(splitter: str) -> None:
    chunks = chunks_of(PROSE * 50, splitter, 128)
    assert min(chunk.tokens for chunk in chunks[:-1]) > 90


@pytest.mark.parametrize("splitter", SIZED)
@pytest.mark.parametrize("text", [PROSE * 30, JAPANESE * 30])
def test_an_overlap_repeats_its_share_of_the_text_before(splitter: str, text: str) -> None:
    chunks = chunks_of(text, splitter, 100, 0.25)
    shared = [count_tokens(text[later.span.start : earlier.span.end]) for earlier, later in pairwise(chunks)]
    assert len(shared) > 5 and all(15 <= tokens <= 26 for tokens in shared)


def test_whole_is_one_chunk_whatever_the_size() -> None:
    (chunk,) = chunks_of(f"  {PROSE * 50}\n", "whole", 8, 0.25)
    assert chunk.text == (PROSE * 50).strip() and chunk.tokens > 1000


def test_fixed_windows_are_full_and_end_between_tokens() -> None:
    text = PROSE * 30
    chunks = chunks_of(text, "fixed", 64)
    assert all(chunk.tokens == 64 for chunk in chunks[:-1])
    borders = {0, *tokenized(text).borders(0, len(text))}
    assert all(chunk.span.end in borders for chunk in chunks)


def test_an_overlap_begins_at_a_word() -> None:
    text = PROSE * 30
    assert all(
        chunk.span.start == 0 or text[chunk.span.start - 1].isspace() for chunk in chunks_of(text, "recursive", 64, 0.2)
    )


def test_recursive_prefers_paragraphs_and_sentence_prefers_sentences() -> None:
    short, paragraph = "A short one. With two.", PROSE.strip()
    text = f"{short}\n\n{paragraph}\n\n{short}"
    size = count_tokens(paragraph) + 3
    assert [chunk.text for chunk in chunks_of(text, "recursive", size)] == [short, paragraph, short]
    assert all(chunk.text[-1] in ".!?" for chunk in chunks_of(text, "sentence", 20))


def test_a_sentence_that_is_too_long_is_cut_at_a_word() -> None:
    text = "word " * 100 + "end."
    chunks = chunks_of(text, "sentence", 32)
    assert len(chunks) > 2 and all(chunk.text.startswith("word") for chunk in chunks[:-1])


def test_markdown_keeps_sections_whole_and_packs_small_neighbours() -> None:
    small, long = "\n\nTwo small words.", f"## Long\n\n{PROSE * 2}"
    text = f"# Top\n\nIntro.\n\n## A{small}\n\n## B{small}\n\n{long}\n\n### Under{small}\n\n## C{small}\n"
    chunks = chunks_of(text, "markdown", count_tokens(long) + 5)
    assert [chunk.text.splitlines()[0] for chunk in chunks] == ["# Top", "## Long", "### Under", "## C"]
    assert chunks[0].text.endswith(f"## B{small}") and chunks[1].text == long.strip()


def test_markdown_sections_of_different_parents_do_not_mix() -> None:
    text = f"# One\n\n{PROSE}\n\n## Last of one\n\nSmall.\n\n# Two\n\nSmall.\n\n## First of two\n\n{PROSE}\n"
    chunks = chunks_of(text, "markdown", 50)
    assert not any("Last of one" in chunk.text and "# Two" in chunk.text for chunk in chunks)


def test_markdown_does_not_cut_at_comments_in_code() -> None:
    code = "```python\n# first step\na = 1\n\n# second step\nb = 2\n```"
    text = f"# Title\n\n{PROSE}\n\n## Code\n\n{code}\n"
    (chunk,) = [chunk for chunk in chunks_of(text, "markdown", 50) if "first step" in chunk.text]
    assert code in chunk.text


@pytest.mark.parametrize("splitter", ["recursive", "markdown"])
def test_a_heading_does_not_stand_alone(splitter: str) -> None:
    text = "\n\n".join(f"## Heading {number}\n\n{PROSE * 2}" for number in range(10))
    chunks = chunks_of(text, splitter, 40)
    assert not any(chunk.text.startswith("#") and "\n" not in chunk.text for chunk in chunks)


@pytest.mark.parametrize("splitter", ["recursive", "sentence", "semantic"])
def test_sentences_are_told_from_abbreviations_and_from_broken_lines(splitter: str) -> None:
    first = "Dr. A. Smith came from the U.S. Army, they say,\nand the lines of this\nletter are short."
    second = '"Who?" she asked. (It was he.)'
    texts = [chunk.text for chunk in chunks_of(f"{first} {second} {first}", splitter, count_tokens(first))]
    assert texts == [first, second, first]


def test_semantic_cuts_where_the_subject_changes() -> None:
    harbour = [
        "The harbour holds forty ships.",
        "Ships unload their cargo at the quay of the harbour.",
        "A pilot steers each ship into the harbour.",
        "The quay was built for larger ships.",
    ]
    bread = [
        "Bread dough needs flour, water and yeast.",
        "The baker kneads the dough for the bread.",
        "Yeast lets the dough rise before the bread is baked.",
        "Flour of rye makes a dark bread.",
    ]
    chunks = chunks_of(" ".join(harbour + bread), "semantic", 1000)
    assert [chunk.text for chunk in chunks] == [" ".join(harbour), " ".join(bread)]
    # As each subject fits, the change of subject is where it is cut, though a fuller first chunk would fit too.
    size = count_tokens(" ".join([*harbour, bread[0]]))
    assert chunks_of(" ".join(harbour + bread), "semantic", size) == chunks


def test_a_chunk_knows_the_headings_that_it_stands_under() -> None:
    text = f"Before.\n\n# Top\n\n{PROSE}\n\nSecond\n------\n\n{PROSE}\n\n### Deep\n\n{PROSE}\n\n# *Last*\n\n{PROSE}"
    chunks = chunks_of(text, "markdown", count_tokens(PROSE) + 8)
    assert [chunk.headings for chunk in chunks] == [
        (),
        ("Top",),
        ("Top", "Second"),
        ("Top", "Second", "Deep"),
        ("*Last*",),
    ]
    pieces = chunks_of(text, "recursive", 10)
    assert {chunk.headings for chunk in pieces if "1871" in chunk.text} == {chunk.headings for chunk in chunks[1:]}


def test_text_without_headings_has_no_path() -> None:
    assert {chunk.headings for chunk in chunks_of(f"```\n# code\n```\n\n{PROSE}", "recursive", 16)} == {()}


@pytest.mark.parametrize(
    ("splitter", "size", "overlap", "message"),
    [
        ("magic", 64, 0.0, "'magic' is unknown; choose one of fixed, recursive, sentence, markdown, semantic, whole"),
        ("recursive", 0, 0.0, "chunk_size: 0"),
        ("recursive", 64, 0.95, "chunk_overlap: 0.95"),
        ("recursive", 64, -0.1, "chunk_overlap: -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(splitter: str, size: int, overlap: float, message: str) -> None:
    with pytest.raises(RagwrightError, match=message):
        chunks_of("text", splitter, size, overlap)


@pytest.mark.parametrize("splitter", SIZED)
def test_any_counter_of_tokens_will_do(splitter: str) -> None:
    chunks = split(Document("d", PROSE), splitter, 10, 0.2, lambda text: len(text.split()))
    assert all(chunk.tokens == len(chunk.text.split()) <= 10 for chunk in chunks)
