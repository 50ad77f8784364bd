from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.data.example import Example, Place
from optimize.data.splits import FEW_DOCUMENTS, SHARES, balanced_order, group_examples, split_examples
from programs.errors import RagwrightError
from programs.types import Document, Span

MANY = {f"d{i}": Document(f"d{i}", "x" * 100) for i in range(60)}


def ask(number: int, *spans: Span, group: str = "") -> Example:
    return Example(f"q{number}", f"Question {number}?", ("x",), tuple((Place(s, "x"),) for s in spans), group)


def over(number: int, *doc_ids: str) -> Example:
    return ask(number, *(Span(doc_id, 0, 1) for doc_id in doc_ids))


def with_enough_documents(examples: list[Example]) -> list[Example]:
    """So many source documents that whole documents are the groups."""
    return examples + [over(1000 + i, f"d{30 + i}") for i in range(FEW_DOCUMENTS)]


def test_questions_over_two_documents_join_them() -> None:
    examples = with_enough_documents([over(0, "d0"), over(1, "d1"), over(2, "d2"), over(3, "d0", "d1"), over(4, "d4")])
    groups = group_examples(examples, MANY)
    assert groups["q0"] == groups["q1"] == groups["q3"]
    assert len({groups["q0"], groups["q2"], groups["q4"]}) == 3


doc_sets = st.lists(st.sets(st.integers(0, 29), min_size=1, max_size=3), min_size=1, max_size=40)


@given(doc_sets)
def test_groups_are_the_connected_components(doc_sets: list[set[int]]) -> None:
    examples = with_enough_documents([over(n, *(f"d{i}" for i in docs)) for n, docs in enumerate(doc_sets)])
    groups = group_examples(examples, MANY)
    reached = {example.id: set(example.documents) for example in examples}
    changed = True
    while changed:
        changed = False
        for one in reached.values():
            for other in reached.values():
                if one & other and one != other:
                    one |= other
                    other |= one
                    changed = True
    for one in examples:
        for other in examples:
            assert (groups[one.id] == groups[other.id]) is bool(reached[one.id] & reached[other.id])


@given(doc_sets, st.integers(0, 5))
def test_no_document_is_in_two_splits_and_no_question_is_lost(doc_sets: list[set[int]], seed: int) -> None:
    examples = with_enough_documents([over(n, *(f"d{i}" for i in docs)) for n, docs in enumerate(doc_sets)])
    splits = split_examples(examples, MANY, seed)
    seen: dict[str, str] = {}
    for name, members in splits.items():
        assert members
        for example in members:
            assert {seen.setdefault(doc_id, name) for doc_id in example.documents} == {name}
    assert Counter(e.id for members in splits.values() for e in members) == Counter(e.id for e in examples)


@given(st.lists(st.integers(1, 40), min_size=3, max_size=12), st.floats(0.01, 0.9))
def test_no_split_stays_empty(sizes: list[int], share: float) -> None:
    examples = [ask(100 * g + n, group=f"g{g}") for g, size in enumerate(sizes) for n in range(size)]
    shares = {"a": share, "b": 0.0, "c": 1 - share}
    assert all(split_examples(examples, {}, 0, shares).values())


def test_shares_are_met_where_groups_are_small() -> None:
    examples = [over(n, f"d{n % 50}") for n in range(1000)]
    splits = split_examples(examples, MANY, seed=3)
    assert {name: len(members) / 1000 for name, members in splits.items()} == pytest.approx(SHARES, abs=0.02)


def test_split_depends_on_the_seed_alone() -> None:
    examples = [over(n, f"d{n % 50}") for n in range(200)]
    assert split_examples(examples, MANY, 1) == split_examples(examples, MANY, 1)
    assert split_examples(examples, MANY, 1) != split_examples(examples, MANY, 2)


def test_repeated_question_is_kept_once_where_it_came_first() -> None:
    examples = with_enough_documents([over(0, "d0"), Example("again", "question 0", ("y",)), over(1, "d1")])
    ids = {example.id for members in split_examples(examples, MANY, 0).values() for example in members}
    assert "q0" in ids and "again" not in ids


def test_too_few_groups_are_explained() -> None:
    with pytest.raises(RagwrightError, match=r"come from 2 independent part\(s\) of the corpus and 3 splits"):
        split_examples([ask(0, group="a"), ask(1, group="a"), ask(2, group="b")], {}, 0)


def test_repeated_id_is_refused() -> None:
    twice = [Example("x", f"{name}?", ()) for name in "abc"]
    with pytest.raises(RagwrightError, match="'x' among them"):
        split_examples(twice, {}, 0)


def test_known_groups_hold_for_a_part_of_a_data_set() -> None:
    examples = with_enough_documents([over(n, f"d{n // 4}") for n in range(24)])
    groups = group_examples(examples, MANY)
    parts = split_examples(examples[:24], MANY, 0, {"search": 0.6, "confirm": 0.4}, groups)
    assert not {groups[e.id] for e in parts["search"]} & {groups[e.id] for e in parts["confirm"]}


MARKDOWN = "intro\n\n# One\n\nalpha\n\nbeta\n\n```\n# no heading\n```\n\ngamma\n\n## Two\n\ndelta\n"


def at(document: Document, number: int, *words: str) -> Example:
    starts = [document.text.index(word) for word in words]
    return ask(number, *(Span(document.id, start, start + len(words[0])) for start in starts))


def same(one: str, other: str, text: str) -> bool:
    document = Document("m", text)
    groups = group_examples([at(document, 0, one), at(document, 1, other)], {"m": document})
    return groups["q0"] == groups["q1"]


def test_with_few_documents_sections_are_the_groups() -> None:
    assert same("alpha", "beta", MARKDOWN)
    assert same("alpha", "gamma", MARKDOWN)
    assert not same("alpha", "delta", MARKDOWN)
    assert not same("intro", "alpha", MARKDOWN)


def test_without_headings_paragraphs_are_the_sections() -> None:
    assert same("one", "two", "one two\n \nthree")
    assert not same("one", "three", "one two\n \nthree")


def test_span_over_two_sections_joins_them() -> None:
    document = Document("m", "one\n\ntwo\n\nthree")
    long = ask(2, Span("m", 0, 8))
    groups = group_examples(
        [at(document, 0, "one"), at(document, 1, "two"), long, at(document, 3, "three")], {"m": document}
    )
    assert groups["q0"] == groups["q1"] == groups["q2"] != groups["q3"]


def test_without_evidence_the_declared_group_counts_else_the_question() -> None:
    examples = [ask(0, group="a"), ask(1, group="a"), ask(2), Example("again", "question 2", ())]
    groups = group_examples(examples, {})
    assert groups["q0"] == groups["q1"]
    assert groups["q2"] == groups["again"] != groups["q0"]


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 12), min_size=1), st.integers(0, 9))
def test_every_prefix_of_the_order_is_balanced(sizes: dict[str, int], seed: int) -> None:
    examples = [ask(100 * ord(name) + n, group=name) for name, size in sizes.items() for n in range(size)]
    groups = {example.id: example.group for example in examples}
    random.Random(seed).shuffle(examples)
    order = balanced_order(examples, groups, seed)
    assert sorted(e.id for e in order) == sorted(e.id for e in examples)
    seen: dict[str, int] = defaultdict(int)
    for example in order:
        seen[example.group] += 1
        unfinished = [seen[name] for name, size in sizes.items() if seen[name] < size]
        assert max(seen.values()) - min(unfinished, default=max(seen.values())) <= 1


def test_order_depends_on_the_seed() -> None:
    examples = [ask(n, group=str(n % 5)) for n in range(30)]
    groups = {example.id: example.group for example in examples}
    assert balanced_order(examples, groups, 1) == balanced_order(examples, groups, 1)
    assert balanced_order(examples, groups, 1) != balanced_order(examples, groups, 2)
    assert balanced_order([], {}, 1) == []
