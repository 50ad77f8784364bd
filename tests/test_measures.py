from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimize.data.example import Example, Fact, Place
from optimize.inference.statistics import mean_and_stderr
from optimize.measures.spans import precision_omega
from optimize.measures.table import (
    MEASURE_NAMES,
    MEASURES,
    ROW_MEASURES,
    MeasureMean,
    Scorer,
    gold_in_context,
    mean_of,
    measure_many,
    measure_retrieval,
    parse_measure,
)
from programs.errors import RagwrightError
from programs.types import Chunk, Passage, Span

SPAN_MEASURES = ("span_recall", "span_precision", "iou", "gold_in_context")
RANKING = ("R@1", "R@3", "R@10", "nDCG", "nDCG@1", "nDCG@3", "nDCG@10", "RR", "AP")
FROM_SPANS = SPAN_MEASURES + RANKING
GIVEN = ("precision_omega", "context_tokens", "latency_ms")

# No deadline: the first call of a ranking measure loads the library.
checked = settings(derandomize=True, deadline=None)


def span(start: int, end: int, doc_id: str = "d") -> Span:
    return Span(doc_id, start, end)


def fact(*spans: Span) -> Fact:
    return tuple(Place(s, "x") for s in spans)


def needs(*facts: Fact) -> Example:
    return Example("q", "Where?", ("x",), facts)


def values(names: Sequence[str], example: Example, spans: Sequence[Span]) -> dict[str, float]:
    row = measure_many([parse_measure(name) for name in names], [example], [spans])[0]
    return dict(zip(names, row.tolist(), strict=True))


def value(name: str, example: Example, spans: Sequence[Span]) -> float:
    return values([name], example, spans)[name]


def omega(example: Example, chunks: Sequence[Span]) -> float:
    return float(precision_omega([example], chunks)[0])


ranges = st.tuples(st.integers(0, 40), st.integers(1, 15), st.sampled_from("de")).map(
    lambda drawn: span(drawn[0], drawn[0] + drawn[1], drawn[2])
)
facts = st.lists(st.lists(ranges, min_size=1, max_size=3).map(lambda spans: fact(*spans)), min_size=1, max_size=4)
single_facts = st.lists(ranges.map(fact), min_size=1, max_size=4)
retrieved = st.lists(ranges, max_size=8)


@st.composite
def partitions(draw: st.DrawFn) -> list[Span]:
    """Two documents of 60 characters, cut somewhere."""
    chunks = []
    for doc_id in "de":
        bounds = [0, *sorted(draw(st.sets(st.integers(1, 59), max_size=8))), 60]
        chunks += [span(start, end, doc_id) for start, end in pairwise(bounds)]
    return chunks


# Names


@pytest.mark.parametrize("name", [name.replace("@k", f"@{k}") for name in MEASURE_NAMES for k in (1, 10, 200)])
def test_names_parse_and_print_back(name: str) -> None:
    measure = parse_measure(name)
    assert str(measure) == name
    assert measure == parse_measure(name) and hash(measure) == hash(parse_measure(name))
    assert measure.k == (int(name.partition("@")[2]) if "@" in name else None)


def test_different_names_are_different_measures() -> None:
    names = [*SPAN_MEASURES, *RANKING, *GIVEN]
    assert len({parse_measure(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "recall",
        "ndcg@10",
        "R",
        "R@",
        "R@0",
        "R@-1",
        "R@1.5",
        "R@01",
        "R@٣",
        "RR@3",
        "AP@2",
        "iou@1",
        " iou",
        "iou\n",
    ],
)
def test_unknown_names_are_refused_with_the_choices(name: str) -> None:
    with pytest.raises(RagwrightError) as error:
        parse_measure(name)
    assert repr(name) in str(error.value) and len(str(error.value).splitlines()) == 1
    assert all(f" {choice}," in str(error.value) for choice in MEASURE_NAMES)


def test_every_measure_says_what_it_is() -> None:
    for kind in MEASURES.values():
        assert kind.__doc__ is not None
        assert "Formula: " in kind.__doc__ and "Range: " in kind.__doc__
        assert ("Source: " in kind.__doc__) == kind.needs_evidence


def test_direction_and_needs() -> None:
    costs = {name for name in MEASURES if not MEASURES[name].higher_is_better}
    assert costs == {name for name in MEASURES if not MEASURES[name].needs_evidence} == {"context_tokens", "latency_ms"}
    assert {name for name in MEASURES if not MEASURES[name].from_spans} == set(GIVEN)


# Span measures


def test_span_measures_of_hand_cases() -> None:
    example = needs(fact(span(10, 20)), fact(span(0, 4, "e")))
    assert values(SPAN_MEASURES, example, []) == dict.fromkeys(SPAN_MEASURES, 0.0)
    assert values(SPAN_MEASURES, example, [span(0, 15)]) == pytest.approx(
        {"span_recall": 1 / 4, "span_precision": 5 / 15, "iou": 5 / (15 + 9), "gold_in_context": 0}
    )
    assert values(SPAN_MEASURES, example, [span(15, 99), span(0, 15), span(0, 4, "e")]) == pytest.approx(
        {"span_recall": 1, "span_precision": 14 / 103, "iou": 14 / 103, "gold_in_context": 1}
    )
    exactly = [span(10, 20), span(0, 4, "e")]
    assert values(SPAN_MEASURES, example, exactly) == dict.fromkeys(SPAN_MEASURES, 1.0)


def test_long_fact_weighs_as_much_as_a_short_one_in_recall() -> None:
    assert value("span_recall", needs(fact(span(0, 90)), fact(span(95, 96))), [span(90, 99)]) == 0.5


def test_one_of_several_places_is_enough_and_the_best_covered_one_is_gold() -> None:
    example = needs(fact(span(10, 20), span(50, 60), span(0, 9, "e")))
    assert values(SPAN_MEASURES, example, [span(50, 60)]) == dict.fromkeys(SPAN_MEASURES, 1.0)
    assert value("span_recall", example, [span(10, 15), span(50, 54)]) == 0.5
    assert value("span_precision", example, [span(10, 15), span(50, 54)]) == 5 / 9


def test_same_offsets_in_another_document_hold_nothing() -> None:
    assert values(FROM_SPANS, needs(fact(span(10, 20))), [span(0, 99, "e")]) == dict.fromkeys(FROM_SPANS, 0.0)


def characters(s: Span) -> set[tuple[str, int]]:
    return {(s.doc_id, position) for position in range(s.start, s.end)}


def union(spans: Sequence[Span]) -> set[tuple[str, int]]:
    return set().union(*map(characters, spans))


@checked
@given(facts, retrieved)
def test_span_measures_equal_sets_of_characters(evidence: list[Fact], spans: list[Span]) -> None:
    handed = union(spans)
    best = []
    for places in evidence:
        shares = [len(handed & characters(place.span)) / len(place.span) for place in places]
        best.append((max(shares), places[shares.index(max(shares))].span))
    gold = union([place for _, place in best])
    length = sum(map(len, spans))
    assert values(SPAN_MEASURES, needs(*evidence), spans) == pytest.approx(
        {
            "span_recall": sum(share for share, _ in best) / len(best),
            "span_precision": len(gold & handed) / length if spans else 0.0,
            "iou": len(gold & handed) / (length + len(gold - handed)),
            "gold_in_context": float(all(share == 1 for share, _ in best)),
        }
    )
    assert gold_in_context(needs(*evidence), spans) == all(share == 1 for share, _ in best)


@checked
@given(facts, retrieved, st.data())
def test_cutting_and_merging_adjacent_text_and_order_change_no_span_measure(
    evidence: list[Fact], spans: list[Span], data: st.DataObject
) -> None:
    pieces = []
    for s in spans:
        cuts = sorted(data.draw(st.sets(st.integers(s.start, s.end))))
        bounds = [s.start, *(cut for cut in cuts if s.start < cut < s.end), s.end]
        pieces += [span(start, end, s.doc_id) for start, end in pairwise(bounds)]
    pieces = data.draw(st.permutations(pieces))
    # From `spans` to `pieces` text is cut, the other way it is merged.
    assert values(SPAN_MEASURES, needs(*evidence), pieces) == values(SPAN_MEASURES, needs(*evidence), spans)


def test_text_handed_over_twice_costs_precision_but_no_recall() -> None:
    example = needs(fact(span(10, 20)))
    whole, overlapping = [span(0, 20)], [span(0, 15), span(5, 20)]
    assert value("span_recall", example, overlapping) == value("span_recall", example, whole) == 1
    assert value("span_precision", example, whole) == 10 / 20
    assert value("span_precision", example, overlapping) == 10 / 30
    assert value("iou", example, overlapping) == 10 / 30


def test_cutting_a_fact_into_small_pieces_loses_it_in_the_ranking_only() -> None:
    example = needs(fact(span(0, 12)))
    whole, cut = [span(0, 12)], [span(0, 4), span(4, 8), span(8, 12)]
    assert values(SPAN_MEASURES, example, cut) == values(SPAN_MEASURES, example, whole)
    assert set(values(RANKING, example, whole).values()) == {1.0}
    assert set(values(RANKING, example, cut).values()) == {0.0}


@checked
@given(facts, retrieved, ranges, st.integers(0, 8))
def test_another_passage_never_lowers_recall(evidence: list[Fact], spans: list[Span], more: Span, place: int) -> None:
    example = needs(*evidence)
    larger = [*spans[:place], more, *spans[place:]]
    for name in ("span_recall", "gold_in_context"):
        assert value(name, example, larger) >= value(name, example, spans)
    # At the end it lowers no ranking measure, either.
    before, after = values(RANKING, example, spans), values(RANKING, example, [*spans, more])
    assert all(after[name] >= before[name] for name in RANKING)


@checked
@given(facts, retrieved)
def test_values_lie_between_0_and_1(evidence: list[Fact], spans: list[Span]) -> None:
    found = values(FROM_SPANS, needs(*evidence), spans)
    assert all(0 <= each <= 1 for each in found.values())
    assert found["iou"] <= found["span_precision"]


# Precision omega


def test_omega_is_the_precision_of_all_chunks_that_touch_gold() -> None:
    example = needs(fact(span(10, 20)))
    assert omega(example, [span(0, 15), span(15, 30), span(30, 99)]) == 10 / 30
    assert omega(example, [span(10, 20), span(0, 10), span(20, 40)]) == 1, "chunks that border on gold do not touch it"
    assert omega(example, [span(0, 15), span(5, 20)]) == 10 / 30, "what chunks share is read twice"
    assert omega(example, [span(12, 22)]) == 8 / 10, "gold outside all chunks takes no part"
    assert omega(example, [span(20, 40), span(10, 20, "e")]) == 0
    assert omega(example, []) == 0


def test_omega_takes_the_place_that_chunks_hold_most_precisely() -> None:
    example = needs(fact(span(0, 10), span(50, 60)), fact(span(60, 70)))
    assert omega(example, [span(0, 40), span(40, 60), span(60, 70)]) == 20 / 30
    assert omega(example, [span(0, 10), span(40, 60), span(60, 70)]) == 1


@checked
@given(single_facts, st.lists(ranges, max_size=12, unique=True))
def test_omega_equals_precision_of_the_chunks_that_share_a_character_with_gold(
    evidence: list[Fact], chunks: list[Span]
) -> None:
    gold = union([places[0].span for places in evidence])
    # A splitter's chunks may overlap, but none lies within another.
    chunks = [
        one for one in chunks if not any(characters(one) <= characters(other) for other in chunks if other != one)
    ]
    touching = [chunk for chunk in chunks if gold & characters(chunk)]
    assert omega(needs(*evidence), chunks) == value("span_precision", needs(*evidence), touching)


@checked
@given(facts, st.lists(ranges, max_size=12, unique=True))
def test_omega_with_alternatives_equals_that_of_one_choice(evidence: list[Fact], chunks: list[Span]) -> None:
    alone = [max((omega(needs((place,)), chunks), -i) for i, place in enumerate(places)) for places in evidence]
    chosen = [(places[-i],) for places, (_, i) in zip(evidence, alone, strict=True)]
    assert omega(needs(*evidence), chunks) == omega(needs(*chosen), chunks)


@checked
@given(single_facts, partitions(), st.data())
def test_no_complete_context_is_more_precise_than_omega(
    evidence: list[Fact], chunks: list[Span], data: st.DataObject
) -> None:
    example = needs(*evidence)
    gold = union([places[0].span for places in evidence])
    # A splitter's chunks may overlap, but none lies within another.
    chunks = [
        one for one in chunks if not any(characters(one) <= characters(other) for other in chunks if other != one)
    ]
    touching = [chunk for chunk in chunks if gold & characters(chunk)]
    spans = [*touching, *data.draw(st.lists(st.sampled_from(chunks), max_size=4))]
    assert gold_in_context(example, spans)
    assert value("span_precision", example, spans) <= omega(example, chunks)
    lacking = data.draw(st.sampled_from(touching))
    assert not gold_in_context(example, [chunk for chunk in chunks if chunk != lacking])


@checked
@given(single_facts, partitions(), st.data())
def test_finer_chunks_never_lower_omega(evidence: list[Fact], chunks: list[Span], data: st.DataObject) -> None:
    cut = data.draw(st.sampled_from([chunk for chunk in chunks if len(chunk) > 1]))
    middle = data.draw(st.integers(cut.start + 1, cut.end - 1))
    finer = [chunk for chunk in chunks if chunk != cut]
    finer += [span(cut.start, middle, cut.doc_id), span(middle, cut.end, cut.doc_id)]
    assert omega(needs(*evidence), finer) >= omega(needs(*evidence), chunks)


# Ranking measures


def test_ranking_measures_of_hand_cases() -> None:
    example = needs(fact(span(10, 20)), fact(span(30, 40)))
    late = [span(0, 10), span(8, 22), span(50, 60), span(29, 41)]
    ideal = 1 + 1 / math.log2(3)
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    assert values(RANKING, example, late) == pytest.approx(
        {
            "R@1": 0,
            "R@3": 1 / 2,
            "R@10": 1,
            "nDCG": gain / ideal,
            "nDCG@1": 0,
            "nDCG@3": (1 / math.log2(3)) / ideal,
            "nDCG@10": gain / ideal,
            "RR": 1 / 2,
            "AP": (1 / 2 + 2 / 4) / 2,
        }
    )


def test_perfect_ranking_has_1_in_every_chunking() -> None:
    example = needs(fact(span(10, 20)), fact(span(30, 40)))
    together, apart = values(RANKING, example, [span(0, 99)]), values(RANKING, example, [span(0, 25), span(25, 50)])
    assert set(together.values()) == {1.0}
    assert {name for name in RANKING if apart[name] != 1} == {"R@1"}


def test_recall_at_k_counts_passages_and_ndcg_counts_facts() -> None:
    example = needs(fact(span(10, 20)), fact(span(30, 40)), fact(span(80, 90)))
    spans = [span(0, 50), span(50, 60), span(80, 90)]
    assert value("R@1", example, spans) == pytest.approx(2 / 3)
    assert value("R@3", example, spans) == 1
    # The third fact is at rank 4: after two facts and a passage without one.
    assert value("nDCG@3", example, spans) == pytest.approx((1 + 1 / math.log2(3)) / (1 + 1 / math.log2(3) + 1 / 2))
    assert value("AP", example, spans) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_half_of_a_place_finds_it_and_less_does_not() -> None:
    example = needs(fact(span(10, 20)))
    assert value("R@1", example, [span(15, 25)]) == 1
    assert value("R@1", example, [span(16, 25)]) == 0
    assert value("R@3", example, [span(10, 14), span(14, 18), span(18, 20)]) == 0


def test_fact_counts_once_however_many_passages_find_it() -> None:
    example = needs(fact(span(10, 20)), fact(span(30, 40)))
    again = [span(5, 25)] * 3
    assert value("R@10", example, again) == 0.5
    assert values(RANKING, example, again) == values(RANKING, example, [span(5, 25)])


def items(evidence: Sequence[Fact], spans: Sequence[Span]) -> list[list[str]]:
    """For each passage the facts that it is the first to find, or one filler."""
    found: set[int] = set()
    ranking = []
    for rank, s in enumerate(spans):
        new = [
            number
            for number, places in enumerate(evidence)
            if number not in found and any(2 * s.overlap(place.span) >= len(place.span) for place in places)
        ]
        found.update(new)
        ranking.append([str(number) for number in new] or [f"no{rank}"])
    return ranking


@checked
@given(facts, st.lists(ranges, max_size=14))
def test_ranking_measures_equal_ir_measures(evidence: list[Fact], spans: list[Span]) -> None:
    groups = items(evidence, spans)
    flat = [item for group in groups for item in group]
    qrels = [ir_measures.Qrel("q", str(number), 1) for number in range(len(evidence))]
    run = [ir_measures.ScoredDoc("q", item, 1000.0 - position) for position, item in enumerate(flat)]
    # The first k passages are as many items as they find facts, and more.
    names = {name: name for name in RANKING if not name.startswith("R@")}
    for k in (1, 3, 10):
        names[f"R@{k}"] = f"R@{max(1, sum(map(len, groups[:k])))}"
    expected = {
        name: ir_measures.calc_aggregate([ir_measures.parse_measure(theirs)], qrels, run) if run else {"": 0.0}
        for name, theirs in names.items()
    }
    found = values(RANKING, needs(*evidence), spans)
    assert found == pytest.approx({name: next(iter(one.values())) for name, one in expected.items()})


@checked
@given(facts, st.lists(ranges, max_size=14))
def test_ranking_measures_equal_their_formulas(evidence: list[Fact], spans: list[Span]) -> None:
    groups, count = items(evidence, spans), len(evidence)
    flat = [item for group in groups for item in group]
    ranks = [position for position, item in enumerate(flat, 1) if not item.startswith("no")]

    def gain(among: Sequence[int], k: float) -> float:
        return sum(1 / math.log2(rank + 1) for rank in among if rank <= k)

    expected = {
        f"R@{k}": sum(not item.startswith("no") for group in groups[:k] for item in group) / count for k in (1, 3, 10)
    }
    for name, k in (("nDCG", math.inf), ("nDCG@1", 1), ("nDCG@3", 3), ("nDCG@10", 10)):
        expected[name] = gain(ranks, k) / gain(range(1, count + 1), k)
    expected["RR"] = 1 / ranks[0] if ranks else 0.0
    expected["AP"] = sum(number / rank for number, rank in enumerate(ranks, 1)) / count
    assert values(RANKING, needs(*evidence), spans) == pytest.approx(expected)


# Many questions


@checked
@given(st.lists(st.tuples(st.one_of(st.just([]), facts), retrieved), max_size=5))
def test_many_questions_have_the_values_that_each_has_alone(cases: list[tuple[list[Fact], list[Span]]]) -> None:
    measures = [parse_measure(name) for name in FROM_SPANS]
    scorer = Scorer([needs(*evidence) for evidence, _ in cases], measures)
    found = scorer.score([spans for _, spans in cases])
    assert found.shape == (len(cases), len(measures))
    for row, (evidence, spans) in zip(found, cases, strict=True):
        alone = values(FROM_SPANS, needs(*evidence), spans) if evidence else dict.fromkeys(FROM_SPANS, math.nan)
        np.testing.assert_array_equal(row, list(alone.values()))
    # The evidence is prepared once, and nothing of one configuration is left in it for the next.
    np.testing.assert_array_equal(scorer.score([spans for _, spans in cases]), found)


def test_columns_follow_the_measures_and_given_ones_are_taken_over() -> None:
    examples = [needs(fact(span(0, 10))), needs()]
    names = ("latency_ms", "span_recall", "precision_omega", "R@1", "context_tokens")
    found = measure_many(
        [parse_measure(name) for name in names],
        examples,
        [[span(0, 5)], [span(0, 5)]],
        {
            "context_tokens": [3, 4],
            "latency_ms": np.array([1.5, 2.5]),
            "precision_omega": precision_omega(examples, [span(0, 20)]),
        },
    )
    np.testing.assert_array_equal(found, [[1.5, 0.5, 0.5, 1, 3], [2.5, math.nan, math.nan, math.nan, 4]])


def test_nothing_to_score_is_no_error() -> None:
    recall = parse_measure("span_recall")
    assert measure_many([recall], [], []).shape == (0, 1)
    assert measure_many([], [needs(fact(span(0, 9)))], [[]]).shape == (1, 0)
    assert np.isnan(measure_many([recall], [needs()], [[span(0, 9)]])).all()
    assert precision_omega([], []).shape == (0,)


def test_mean_says_how_many_were_scored() -> None:
    assert mean_of([0.0, None, 1.0, math.nan, 0.5]) == MeasureMean(0.5, mean_and_stderr([0, 1, 0.5])[1], 3, 2)
    one = mean_of(np.array([0.25, math.nan]))
    assert (one.value, one.n, one.unscored) == (0.25, 1, 1) and math.isnan(one.stderr)
    none = mean_of([None, math.nan])
    assert math.isnan(none.value) and math.isnan(none.stderr) and (none.n, none.unscored) == (0, 2)
    assert mean_of([]).n == mean_of([]).unscored == 0


def test_error_of_a_mean_counts_dependent_questions_as_such() -> None:
    scores, groups = [0.0, math.nan, 0.0, 1.0, 1.0], ["a", "c", "a", "b", "b"]
    clustered = mean_of(scores, groups)
    assert clustered.stderr == mean_and_stderr([0, 0, 1, 1], ["a", "a", "b", "b"])[1] > mean_of(scores).stderr
    assert (clustered.n, clustered.unscored) == (4, 1)


# One question


def passages(*spans: Span) -> list[Passage]:
    return [Passage(Chunk("c", s, "x" * len(s)), 1.0) for s in spans]


def test_question_without_evidence_is_not_measured() -> None:
    assert measure_retrieval(needs(), passages(span(0, 9))) == {}


def test_row_has_the_same_names_whatever_was_handed_over() -> None:
    example = needs(fact(span(0, 9)))
    names = ["span_recall", "span_precision", "iou", "gold_in_context", "R@1", "nDCG", "RR", "AP"]
    assert [str(measure) for measure in ROW_MEASURES] == names
    assert measure_retrieval(example, passages(span(0, 9))) == dict.fromkeys(names, 1.0)
    assert measure_retrieval(example, []) == dict.fromkeys(names, 0.0)
    assert list(measure_retrieval(example, passages(*[span(0, 9)] * 12))) == names


@checked
@given(facts, retrieved)
def test_row_has_the_values_of_the_batch(evidence: list[Fact], spans: list[Span]) -> None:
    row = measure_retrieval(needs(*evidence), passages(*spans))
    assert row == values(list(row), needs(*evidence), spans)
