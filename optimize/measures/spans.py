"""Measures of what text was handed over, in characters; the order of the passages does not enter them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from optimize.data.example import Example, Fact, Place
from optimize.measures.evidence import Gold, Held
from optimize.measures.measure import Measure
from programs.types import Span


class SpanRecall(Measure):
    """Mean over facts of the share of the fact's characters that the passages cover together.

    Formula: mean over facts of max over its places p of |p ∩ passages| / |p|. Range: 0 to 1. Source: recall of Smith
    and Troynikov 2024 ("Evaluating Chunking Strategies for Retrieval", Chroma). Theirs divides the characters of all
    excerpts together; here a long fact weighs as much as a short one, and one of several places is enough.
    """

    base = "span_recall"

    def _value(self, held: Held) -> float:
        return sum(held.shares) / len(held.shares)


class SpanPrecision(Measure):
    """Share of the characters handed over that are gold.

    Formula: |gold ∩ passages| / sum of |passage|, where a gold character counts once and text that two passages share
    counts twice below, since the LM reads it twice. Range: 0 to 1; 0 where nothing was handed over. Source: Smith and
    Troynikov 2024, who count the same way. Gold is the best covered place of each fact.
    """

    base = "span_precision"

    def _value(self, held: Held) -> float:
        return held.precision


class IoU(Measure):
    """Intersection over union of gold and passages: precision that also pays for gold left out.

    Formula: |gold ∩ passages| / (sum of |passage| + |gold outside the passages|); text that two passages share counts
    twice below. Range: 0 to 1, at most the precision. Source: Smith and Troynikov 2024, who count the same way.
    """

    base = "iou"

    def _value(self, held: Held) -> float:
        return held.covered / (held.length + held.gold - held.covered)


class GoldInContext(Measure):
    """Whether every fact is complete: 1 if each has a place that the passages cover from end to end, else 0.

    Formula: min over facts of [share of `span_recall` = 1]. Range: 0 or 1. Source: exact containment of the answer
    span, as in open-domain SQuAD retrieval (Chen et al. 2017), over all facts of a question.
    """

    base = "gold_in_context"

    def _value(self, held: Held) -> float:
        return float(min(held.shares) == 1.0)


class PrecisionOmega(Measure):
    """Precision when every chunk that touches gold is handed over and nothing else: what a chunking allows.

    Formula: `span_precision` of the index's chunks that share a character with gold, each once. Range: 0 to 1. It
    depends on chunks and question, not on the retrieval; where chunks do not overlap, no complete context of facts with
    one place is more precise. Of alternative places, the one that is held most precisely alone is gold. Source: Smith
    and Troynikov 2024. Their code counts text that chunks share once here (though not in precision), adds gold outside
    all chunks below, and takes chunks along that only border on gold; ours is the plain precision of those chunks.
    """

    base = "precision_omega"
    from_spans = False


class ChunkMap:
    """An index's chunks by document, to look up those that share characters with a place."""

    def __init__(self, chunks: Iterable[Span]) -> None:
        """Sort the chunks by document."""
        self._spans: dict[str, list[Span]] = {}
        for chunk in chunks:
            self._spans.setdefault(chunk.doc_id, []).append(chunk)
        for spans in self._spans.values():
            spans.sort()

    def touching(self, place: Span) -> list[Span]:
        """The chunks that hold at least one character of a place."""
        spans = self._spans.get(place.doc_id, [])
        before = bisect_left(spans, place.end, key=lambda span: span.start)
        # Ends ascend with starts, as no chunk lies within another.
        first = bisect_right(spans, place.start, key=lambda span: span.end, hi=before)
        return spans[first:before]


def precision_omega(examples: Sequence[Example], chunks: Iterable[Span]) -> NDArray[np.float64]:
    """The measure `precision_omega` of each question; it is the same for every retrieval from the same chunks.

    Args:
        examples: The questions.
        chunks: Where all chunks of the index lie, each once, in any order; none lies within another.

    Returns:
        One value a question, in [0, 1]; NaN without evidence.
    """
    chunk_map = ChunkMap(chunks)
    return np.array([_omega(example.evidence, chunk_map) if example.evidence else np.nan for example in examples])


def _omega(evidence: Sequence[Fact], chunks: ChunkMap) -> float:
    gold = [fact if len(fact) == 1 else (_best_alone(fact, chunks),) for fact in evidence]
    return _full_precision(gold, chunks)


def _best_alone(fact: Fact, chunks: ChunkMap) -> Place:
    """The place that is held most precisely when only its own chunks are handed over."""
    return max(fact, key=lambda place: _full_precision([(place,)], chunks))


def _full_precision(facts: Sequence[Fact], chunks: ChunkMap) -> float:
    """Precision when every chunk that touches one of the places is handed over, once."""
    touching = dict.fromkeys(chunk for fact in facts for place in fact for chunk in chunks.touching(place.span))
    return Gold(facts).held_by(list(touching)).precision
