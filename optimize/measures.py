"""Measures of retrieval, from evidence spans: they compare chunkings, since chunk ids do not enter them.

A fact is *found* by a passage that holds at least half of the characters of one of its places; each fact counts
once, for the first passage that finds it. A question without evidence is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from optimize.example import Example, Fact
from programs.types import Passage, Span

FOUND = 0.5
RANKING = ("nDCG@10", "RR", "R@1", "R@3", "R@10")
"""Ranking measures, in the notation of `ir-measures`."""


def span_recall(example: Example, spans: Sequence[Span]) -> float:
    """Mean over facts of the largest share of one place's characters that the spans cover together, in [0, 1]."""
    assert example.evidence, "no evidence, no recall"
    return sum(_covered(fact, spans) for fact in example.evidence) / len(example.evidence)


def gold_in_context(example: Example, spans: Sequence[Span]) -> float:
    """1 if every fact has a place that the spans cover from end to end, else 0."""
    return float(span_recall(example, spans) == 1.0)


def _covered(fact: Fact, spans: Sequence[Span]) -> float:
    return max(_covered_share(place.span, spans) for place in fact)


def _covered_share(place: Span, spans: Sequence[Span]) -> float:
    """Share of `place` that the union of the spans covers; overlapping spans count once."""
    pieces = sorted((max(s.start, place.start), min(s.end, place.end)) for s in spans if s.overlap(place))
    covered, reached = 0, place.start
    for start, end in pieces:
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered / len(place)


def measure_retrieval(example: Example, passages: Sequence[Passage]) -> dict[str, float]:
    """All measures of one question's passages, best first; empty where the question has no evidence."""
    if not example.evidence:
        return {}
    spans = [passage.span for passage in passages]
    values = {"span_recall": span_recall(example, spans), "gold_in_context": gold_in_context(example, spans)}
    return values | rank_measures(example, spans)


def rank_measures(example: Example, spans: Sequence[Span]) -> dict[str, float]:
    """Ranking measures by `ir-measures`, where the relevant items are the facts.

    The ranking handed over has one item a passage: the facts that it is the first to find, or a filler. Facts that
    one passage finds together stand one after another. Scores are derived from ranks, since ties would be broken by
    item id.
    """
    import ir_measures

    ranking: list[str] = []
    left = dict(enumerate(example.evidence))
    for rank, span in enumerate(spans):
        found = [number for number, fact in left.items() if _finds(span, fact)]
        ranking += [f"fact-{number}" for number in found] or [f"other-{rank}"]
        for number in found:
            del left[number]
    qrels = {"q": {f"fact-{number}": 1 for number in range(len(example.evidence))}}
    run = {"q": {item: float(len(ranking) - position) for position, item in enumerate(ranking)}}
    if not ranking:
        return dict.fromkeys(RANKING, 0.0)
    # In our order: that of `calc_aggregate` changes from process to process.
    values = ir_measures.calc_aggregate(_ranking_measures(), qrels, run)
    return {str(measure): float(values[measure]) for measure in _ranking_measures()}


@lru_cache(maxsize=1)
def _ranking_measures() -> tuple[Any, ...]:
    import ir_measures

    return tuple(ir_measures.parse_measure(name) for name in RANKING)


def _finds(span: Span, fact: Fact) -> bool:
    return any(span.overlap(place.span) >= FOUND * len(place.span) for place in fact)
