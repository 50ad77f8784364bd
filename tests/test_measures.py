from __future__ import annotations

import math
from itertools import pairwise

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.example import Example, Fact, Place
from optimize.measures import RANKING, gold_in_context, measure_retrieval, rank_measures, span_recall
from programs.types import Chunk, Passage, Span


def fact(*spans: Span) -> Fact:
    return tuple(Place(span, "x") for span in spans)


def needs(*facts: Fact) -> Example:
    return Example("q", "Where?", ("x",), facts)


def span(start: int, end: int, doc_id: str = "d") -> Span:
    return Span(doc_id, start, end)


def test_recall_is_the_share_of_characters_covered_together() -> None:
    example = needs(fact(span(10, 20)), fact(span(0, 4, "e")))
    assert span_recall(example, []) == 0
    assert span_recall(example, [span(0, 15)]) == 0.25
    assert span_recall(example, [span(0, 15), span(12, 18)]) == 0.4
    assert span_recall(example, [span(15, 99), span(0, 15)]) == 0.5
    assert gold_in_context(example, [span(15, 99), span(0, 15)]) == 0
    assert gold_in_context(example, [span(15, 99), span(0, 15), span(0, 4, "e")]) == 1


def test_one_of_several_places_is_enough() -> None:
    example = needs(fact(span(10, 20), span(50, 60), span(0, 9, "e")))
    assert gold_in_context(example, [span(50, 60)]) == 1
    assert span_recall(example, [span(10, 15), span(50, 55)]) == 0.5


def test_same_offsets_in_another_document_cover_nothing() -> None:
    assert span_recall(needs(fact(span(10, 20))), [span(0, 99, "e")]) == 0


ranges = st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda pair: span(pair[0], pair[0] + pair[1]))
facts = st.lists(st.lists(ranges, min_size=1, max_size=3).map(lambda spans: fact(*spans)), min_size=1, max_size=4)


@given(facts, st.lists(ranges, max_size=6))
def test_recall_counts_characters(facts: list[Fact], spans: list[Span]) -> None:
    covered = {position for s in spans for position in range(s.start, s.end)}
    shares = [
        max(len(covered & set(range(p.span.start, p.span.end))) / len(p.span) for p in places) for places in facts
    ]
    assert span_recall(needs(*facts), spans) == pytest.approx(sum(shares) / len(shares))
    assert gold_in_context(needs(*facts), spans) == (min(shares) == 1)


@given(facts, st.lists(ranges, max_size=6), st.data())
def test_cutting_the_same_text_otherwise_changes_no_span_measure(
    facts: list[Fact], spans: list[Span], data: st.DataObject
) -> None:
    pieces = []
    for s in spans:
        cuts = sorted(data.draw(st.sets(st.integers(s.start, s.end)))) if len(s) > 1 else []
        bounds = [s.start, *(cut for cut in cuts if s.start < cut < s.end), s.end]
        pieces += [span(start, end) for start, end in pairwise(bounds)]
    pieces = data.draw(st.permutations(pieces))
    example = needs(*facts)
    assert span_recall(example, pieces) == span_recall(example, spans)
    assert gold_in_context(example, pieces) == gold_in_context(example, spans)


def test_ranking_measures_of_hand_cases() -> None:
    example = needs(fact(span(10, 20)), fact(span(30, 40)))
    late = [span(0, 10), span(8, 22), span(50, 60), span(29, 41)]
    assert rank_measures(example, late) == pytest.approx(
        {
            "RR": 1 / 2,
            "R@1": 0,
            "R@3": 1 / 2,
            "R@10": 1,
            "nDCG@10": (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
        }
    )
    assert set(rank_measures(example, [span(0, 99)]).items()) >= {("nDCG@10", 1.0), ("RR", 1.0), ("R@1", 0.5)}
    assert rank_measures(example, []) == dict.fromkeys(RANKING, 0.0)


def test_half_of_a_place_finds_it_and_less_does_not() -> None:
    example = needs(fact(span(10, 20)))
    assert rank_measures(example, [span(15, 25)])["R@1"] == 1
    assert rank_measures(example, [span(16, 25)])["R@1"] == 0


def test_fact_counts_once_however_many_passages_find_it() -> None:
    example = needs(fact(span(10, 20)), fact(span(30, 40)))
    again = [span(5, 25)] * 3
    assert rank_measures(example, again)["R@10"] == 0.5
    assert rank_measures(example, again) == pytest.approx(rank_measures(example, [span(5, 25)]))


@given(facts, st.lists(ranges, max_size=14))
def test_ranking_measures_agree_with_ir_measures_on_the_same_ranking(facts: list[Fact], spans: list[Span]) -> None:
    """A plain reference: which facts each rank finds first, handed to ir-measures item by item."""
    ranking: list[str] = []
    for rank, s in enumerate(spans):
        new = [
            str(number)
            for number, places in enumerate(facts)
            if str(number) not in ranking and any(2 * s.overlap(p.span) >= len(p.span) for p in places)
        ]
        ranking += new or [f"no{rank}"]
    qrels = [ir_measures.Qrel("q", str(number), 1) for number in range(len(facts))]
    run = [ir_measures.ScoredDoc("q", item, 1000.0 - position) for position, item in enumerate(ranking)]
    parsed = [ir_measures.parse_measure(name) for name in RANKING]
    expected = ir_measures.calc_aggregate(parsed, qrels, run) if run else dict.fromkeys(parsed, 0.0)
    found = rank_measures(needs(*facts), spans)
    assert found == pytest.approx({str(measure): value for measure, value in expected.items()})
    assert all(0 <= value <= 1 for value in found.values())


def test_question_without_evidence_is_not_measured() -> None:
    passage = Passage(Chunk("c", span(0, 9), "x" * 9), 1.0)
    assert measure_retrieval(needs(), [passage]) == {}
    measured = measure_retrieval(needs(fact(span(0, 9))), [passage])
    assert list(measured) == ["span_recall", "gold_in_context", *RANKING]
    assert set(measured.values()) == {1.0}
