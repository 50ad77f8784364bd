"""Every expansion keeps one contract: exact text, every chunk once, nothing twice, at most as many passages."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import programs.expansion
from programs.errors import RagwrightError
from programs.expansion import EXPANSIONS, Expander, open_expander
from programs.headings import heading_path
from programs.ranking import Ranking
from programs.splitting import SPLITTERS, split
from programs.tokens import count_tokens
from programs.types import Chunk, Document, Passage, Span

FRAGMENTS = [
    "The harbour was built in 1871. ",
    "It cost more than anybody had said! Who paid for it? ",
    "The city did, in the end.\n",
    "\n\n",
    " \t\n \n",
    "\n\n# Heading\n\n",
    "\n\n## Deeper\n\n",
    "これは日本語の文章です。空白はありません。",
    "longwordwithoutanyspace" * 4,
    "- item one\n- item two\n",
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


@dataclass(frozen=True)
class Library:
    """Documents and their chunks, as an index holds them."""

    documents: dict[str, Document]
    chunks: tuple[Chunk, ...]
    splitter: str
    size: int

    def expander(self, name: str) -> Expander:
        return open_expander(name, self.chunks, self.documents, self.splitter, self.size)

    def parents(self, doc_id: str) -> list[Chunk]:
        return split(self.documents[doc_id], self.splitter, 4 * self.size, 0.0, count_tokens)


def library(texts: Sequence[str], splitter: str = "recursive", size: int = 8, overlap: float = 0.0) -> Library:
    documents = {f"d{n}": Document(f"d{n}", text, f"Title {n}") for n, text in enumerate(texts)}
    chunks = [
        chunk for document in documents.values() for chunk in split(document, splitter, size, overlap, count_tokens)
    ]
    return Library(documents, tuple(chunks), splitter, size)


def ranking(*positions: int) -> Ranking:
    return Ranking(np.array(positions, dtype=np.intp), np.linspace(1, 0.5, len(positions), dtype=np.float32))


def holds(outer: Span, inner: Span) -> bool:
    return outer.overlap(inner) == len(inner)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Library, Ranking]:
    """A library and a ranking of at most ten of its chunks."""
    found = library(
        draw(st.lists(TEXTS, min_size=1, max_size=3)),
        draw(st.sampled_from(list(SPLITTERS))),
        draw(st.sampled_from([4, 8, 16])),
        draw(st.sampled_from([0.0, 0.25, 0.9])),
    )
    positions = st.sampled_from(range(len(found.chunks))) if found.chunks else st.just(0)
    most = min(10, len(found.chunks))
    return found, ranking(*draw(st.lists(positions, unique=True, max_size=most)))


@pytest.mark.parametrize("name", EXPANSIONS)
@settings(deadline=None, max_examples=80, derandomize=True)
@given(search=searches())
def test_every_expansion_keeps_the_contract(name: str, search: tuple[Library, Ranking]) -> None:
    found, ranked = search
    expander = found.expander(name)
    passages = expander.passages(ranked)
    assert len(passages) <= len(ranked)
    for passage in passages:
        span, chunk = passage.span, passage.chunk
        document = found.documents[span.doc_id]
        assert chunk.text == document.text[span.start : span.end] and chunk.text.strip() == chunk.text
        assert chunk.headings == heading_path(document.text, span.start)
        assert (chunk.id, chunk.title) == (f"{span.doc_id}#{span.start}-{span.end}", document.title)
        assert chunk.tokens == count_tokens(chunk.text)
        assert type(passage.score) is float
    check_order(found, ranked, passages, once=name != "none")
    if name != "none":
        check_apart(found, passages)
    spans = expander.spans(ranked.positions)
    assert spans == [passage.span for passage in passages]
    assert expander.tokens(spans) == sum(passage.chunk.tokens for passage in passages)
    assert found.expander(name).passages(ranked) == passages


def check_order(found: Library, ranked: Ranking, passages: Sequence[Passage], once: bool) -> None:
    """Every chunk lies in a passage, which has the place and the score of the first of its chunks."""
    homes = []
    for position in ranked.positions:
        around = [at for at, passage in enumerate(passages) if holds(passage.span, found.chunks[position].span)]
        assert len(around) == 1 if once else around
        homes.append(around[0])
    if once:
        assert list(dict.fromkeys(homes)) == list(range(len(passages)))
        assert [passage.score for passage in passages] == [
            float(ranked.scores[homes.index(at)]) for at in range(len(passages))
        ]


def check_apart(found: Library, passages: Sequence[Passage]) -> None:
    """Between two passages of one document stands something to read."""
    for one, other in combinations(sorted(passage.span for passage in passages), 2):
        if one.doc_id == other.doc_id:
            assert found.documents[one.doc_id].text[one.end : other.start].strip()


STORY = library(["".join(f"Sentence number {n} of the story. " for n in range(40)), "Another tale. " * 20])
LAPPED = library([STORY.documents["d0"].text], size=16, overlap=0.5)


def test_without_expansion_passages_are_the_chunks_even_where_they_overlap() -> None:
    passages = LAPPED.expander("none").passages(ranking(3, 1, 2))
    assert [passage.chunk for passage in passages] == [LAPPED.chunks[at] for at in (3, 1, 2)]
    assert passages[1].span.overlap(passages[2].span)
    assert [passage.score for passage in passages] == [1.0, 0.75, 0.5]


def test_neighbours_are_the_chunks_before_and_after_in_the_same_document() -> None:
    expander, chunks = STORY.expander("neighbours"), STORY.chunks
    first_of_other = next(at for at, chunk in enumerate(chunks) if chunk.span.doc_id == "d1")
    for at, low, high in [
        (5, 4, 6),
        (0, 0, 1),
        (first_of_other - 1, first_of_other - 2, first_of_other - 1),
        (first_of_other, first_of_other, first_of_other + 1),
        (len(chunks) - 1, len(chunks) - 2, len(chunks) - 1),
    ]:
        [passage] = expander.passages(ranking(at))
        assert passage.span == Span(chunks[at].span.doc_id, chunks[low].span.start, chunks[high].span.end)


def test_neighbours_that_meet_become_one_passage_at_the_better_place() -> None:
    expander, chunks = STORY.expander("neighbours"), STORY.chunks
    # 20 stands alone; 2 and 8 are joined only by 5, which is ranked last and touches both.
    passages = expander.passages(ranking(8, 20, 2, 5))
    assert [passage.span for passage in passages] == [
        Span("d0", chunks[1].span.start, chunks[9].span.end),
        Span("d0", chunks[19].span.start, chunks[21].span.end),
    ]
    assert [passage.score for passage in passages] == pytest.approx([1.0, 5 / 6])
    assert len(expander.passages(ranking(8, 20, 2))) == 3


@pytest.mark.parametrize("found", [STORY, LAPPED], ids=["apart", "overlapping"])
def test_a_parent_is_the_larger_piece_that_holds_the_middle(found: Library) -> None:
    expander = found.expander("parent")
    whole = 0
    for at, chunk in enumerate(found.chunks):
        middle = (chunk.span.start + chunk.span.end) // 2
        parents = found.parents(chunk.span.doc_id)
        [parent] = [piece for piece in parents if piece.span.start <= middle < piece.span.end]
        [passage] = expander.passages(ranking(at))
        low, high = min(parent.span.start, chunk.span.start), max(parent.span.end, chunk.span.end)
        assert passage.span == Span(chunk.span.doc_id, low, high)
        whole += passage.span == parent.span
    assert whole > len(found.chunks) / 2


def test_a_chunk_that_juts_out_of_its_parent_is_read_whole() -> None:
    document = STORY.documents["d0"]
    parent = STORY.parents("d0")[0]

    def chunk(start: int, end: int) -> Chunk:
        return Chunk(f"d0#{start}-{end}", Span("d0", start, end), document.text[start:end])

    inside, jutting = chunk(0, 20), chunk(parent.span.end - 24, parent.span.end + 15)
    expander = open_expander("parent", (inside, jutting), STORY.documents, STORY.splitter, STORY.size)
    for ranked in (ranking(1), ranking(1, 0), ranking(0, 1)):
        assert expander.spans(ranked.positions) == [Span("d0", 0, jutting.span.end)]


def test_chunks_of_one_parent_are_read_once() -> None:
    assert len(STORY.expander("parent").passages(ranking(1, 0))) == 1
    with_all = STORY.expander("parent").passages(ranking(*reversed(range(len(STORY.chunks)))))
    assert [passage.text for passage in with_all] == [STORY.documents[name].text.strip() for name in ("d1", "d0")]


def test_parents_are_cut_once_for_each_document_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []

    def counting(document: Document, splitter: str, size: int, overlap: float, count: object) -> list[Chunk]:
        cut.append(document.text)
        return split(document, splitter, size, overlap, count_tokens)

    monkeypatch.setattr(programs.expansion, "split", counting)
    found = library(["One tale that nobody has cut yet. " * 20, "And another one of that kind. " * 20])
    assert cut == []
    for overlap in (0.0, 0.5):
        expander = library([document.text for document in found.documents.values()], overlap=overlap).expander("parent")
        for at in (3, 4, 5, 3):
            expander.passages(ranking(at))
    assert cut == [found.documents["d0"].text]


@pytest.mark.parametrize("name", EXPANSIONS)
def test_many_threads_get_what_one_gets(name: str) -> None:
    rankings = [ranking(at, (at * 7 + 3) % len(STORY.chunks)) for at in range(len(STORY.chunks)) if at * 6 % 43 != 40]
    rankings = [ranked for ranked in rankings if len(set(ranked.positions.tolist())) == 2]
    alone, shared = STORY.expander(name), STORY.expander(name)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.passages, rankings)) == [alone.passages(ranked) for ranked in rankings]


@pytest.mark.parametrize("name", EXPANSIONS)
def test_a_passage_stands_under_the_headings_of_its_beginning(name: str) -> None:
    found = library(["# Harbour\n\nOld.\n\n## Walls\n\n" + "Thick walls of grey stone. " * 8], "markdown", 16)
    [passage] = found.expander(name).passages(ranking(1))
    walls = found.documents["d0"].text.index("## Walls")
    assert passage.chunk.headings == (("Harbour", "Walls") if passage.span.start >= walls else ("Harbour",))


@pytest.mark.parametrize("name", EXPANSIONS)
def test_an_empty_ranking_has_no_passages(name: str) -> None:
    expander = open_expander(name, (), {}, "recursive", 8)
    assert expander.passages(Ranking.empty()) == ()
    assert expander.spans(Ranking.empty().positions) == []
    assert expander.tokens([]) == 0


def test_an_unknown_expansion_is_named() -> None:
    with pytest.raises(RagwrightError, match="expansion: 'aunt' is unknown; choose one of none, neighbours, parent"):
        open_expander("aunt", (), {}, "recursive", 8)
