"""Ranking measures by the library `ir-measures`, where the relevant items are a question's facts.

The ranking that the library gets has one item for each passage: a filler, or the fact that the passage is the first
to find. Facts that one passage finds together stand one after another, so that a perfect ranking has the value 1 in
every chunking, be each fact in a passage of its own or all in one.
"""

from __future__ import annotations

from functools import lru_cache

from optimize.measures.evidence import Held
from optimize.measures.measure import Measure


class Recall(Measure):
    """Share of the facts that the first k passages find.

    Formula: |facts found by passages 1 to k| / |facts|. Range: 0 to 1. Source: subtopic recall (Zhai, Cohen and
    Lafferty 2003). It is R@k of `ir-measures` where each passage finds at most one fact; where one finds several, k
    still counts passages.
    """

    base = "R"
    cut = "required"

    def _value(self, held: Held) -> float:
        assert self.k is not None, "R has a cut"
        return sum(rank < self.k for rank in held.ranks) / len(held.shares)


class _Ranking(Measure):
    """A measure that the library `ir-measures` calculates."""

    def _value(self, held: Held) -> float:
        return ranking_value(str(self), len(held.shares), held.ranks)


class NDCG(_Ranking):
    """Normalized discounted cumulative gain of the facts.

    Formula: sum over found facts of 1 / log2(1 + rank), over the same sum with all facts ranked first; with @k ranks
    up to k count in both. A fact's rank is its place among facts and passages without one: two facts of one passage
    take two ranks. Range: 0 to 1. Source: Järvelin and Kekäläinen 2002, by `ir-measures`.
    """

    base = "nDCG"
    cut = "optional"


class ReciprocalRank(_Ranking):
    """One over the rank of the first passage that finds a fact; its mean is MRR.

    Formula: 1 / rank. Range: 0 to 1; 0 where no fact was found. Source: Kantor and Voorhees 2000, by `ir-measures`.
    """

    base = "RR"


class AveragePrecision(_Ranking):
    """Mean over facts of the precision at the fact's rank; its mean over questions is MAP.

    Formula: sum over found facts of (facts found up to its rank / its rank), over all facts; ranks as in nDCG.
    Range: 0 to 1. Source: Harman 1992, by `ir-measures`.
    """

    base = "AP"


def ranking_value(measure: str, facts: int, ranks: tuple[int, ...]) -> float:
    """The value of one question, in [0, 1].

    Args:
        measure: In the notation of `ir-measures`: `nDCG`, `nDCG@10`, `RR`, `AP`.
        facts: How many facts the question has.
        ranks: For each fact that was found the number of passages before the one that finds it first, ascending.
    """
    return _calculate(measure, facts, ranks) if ranks else 0.0


# What passages hold comes to few different patterns, and the library takes longer than all the rest.
@lru_cache(maxsize=2**16)
def _calculate(measure: str, facts: int, ranks: tuple[int, ...]) -> float:
    import ir_measures

    ranking: list[str] = []
    for rank in range(ranks[-1] + 1):
        ranking += [f"fact-{number}" for number, first in enumerate(ranks) if first == rank] or [f"other-{rank}"]
    parsed = ir_measures.parse_measure(measure)
    qrels = {"q": {f"fact-{number}": 1 for number in range(facts)}}
    # Scores from ranks: the library breaks ties by the name of the item.
    run = {"q": {item: float(len(ranking) - position) for position, item in enumerate(ranking)}}
    return float(ir_measures.calc_aggregate([parsed], qrels, run)[parsed])
