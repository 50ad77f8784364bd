"""Where retrieval loses the gold: which stage is to blame for each fact that the LM would not see."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optimize.data.example import Example, Fact
from optimize.measures.evidence import Gold
from optimize.screening.bench import RetrievalBench
from programs.config import PipelineConfig
from programs.ranking import Ranking
from programs.search import Search
from programs.types import Chunk, Span

Stage = Literal["splitter", "retriever", "reranker", "cutoff", "top_k"]
STAGES: dict[Stage, str] = {
    "splitter": "no single chunk holds it whole, and its parts were not all handed over",
    "retriever": "the chunk that holds it was not among the first `retrieve_k`",
    "reranker": "retrieval had it among the first `top_k`, reranking put it lower",
    "cutoff": "it was within `top_k`, but scored below the cut-off",
    "top_k": "it was retrieved, but below `top_k`",
}
"""What each stage did, in the order in which a question passes them."""

SHOWN_DEPTH = 100
"""Up to this rank is said where the lost chunk stood."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A fact that the LM would not see whole.

    Attributes:
        example_id: The question's id.
        question: As asked.
        quote: The fact, as one of its places says it.
        document: Where that place lies.
        stage: What lost it.
        rank: Best rank of a chunk that holds it in retrieval, from 1; None where it was not found or is cut.
        share: Largest share of it that was handed over, in [0, 1).
    """

    example_id: str
    question: str
    quote: str
    document: str
    stage: Stage
    rank: int | None
    share: float


@dataclass(frozen=True)
class Explanation:
    """What one configuration loses.

    Attributes:
        config: The configuration.
        losses: In the order of the questions.
        facts: Number of facts in all.
        questions: Number of questions with evidence.
        unscored: Number of questions without.
    """

    config: PipelineConfig
    losses: tuple[Loss, ...]
    facts: int
    questions: int
    unscored: int

    @property
    def counts(self) -> Mapping[Stage, int]:
        """Facts that each stage loses."""
        found = Counter(loss.stage for loss in self.losses)
        return {stage: found[stage] for stage in STAGES}


def explain(bench: RetrievalBench, examples: Sequence[Example], config: PipelineConfig, unscored: int) -> Explanation:
    """Follow every fact of the examples through a configuration.

    Args:
        bench: Made for these examples.
        examples: All have evidence.
        config: What is explained.
        unscored: Number of examples that were left out for want of evidence.
    """
    search = bench.search(config)
    # Deeper than the reranker looks, so that it can be said how far away a fact was.
    deep = search.retriever.retrieve(bench.questions, max(SHOWN_DEPTH, search.config.retrieve_k))
    stages = zip(examples, deep, bench.reranked(search), bench.selected(search), strict=True)
    holders = _Holders(search.index.chunks)
    losses = [loss for row in stages for loss in _lost(search, holders, *row)]
    facts = sum(len(example.evidence) for example in examples)
    return Explanation(search.config, tuple(losses), facts, len(examples), unscored)


class _Holders:
    """Which chunks hold a place from end to end."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._starts: dict[str, list[int]] = defaultdict(list)
        self._ends: dict[str, list[int]] = defaultdict(list)
        self._first: dict[str, int] = {}
        for position, chunk in enumerate(chunks):
            self._first.setdefault(chunk.span.doc_id, position)
            self._starts[chunk.span.doc_id].append(chunk.span.start)
            self._ends[chunk.span.doc_id].append(chunk.span.end)

    def of(self, fact: Fact) -> set[int]:
        """Positions of the chunks that hold one of a fact's places."""
        return {position for place in fact for position in self._holding(place.span)}

    def _holding(self, span: Span) -> Iterator[int]:
        ends = self._ends[span.doc_id]
        for at in range(bisect_right(self._starts[span.doc_id], span.start) - 1, -1, -1):
            # Ends ascend with starts, so the first chunk that ends too early is followed by such only.
            if ends[at] < span.end:
                return
            yield self._first[span.doc_id] + at


def _lost(
    search: Search, holders: _Holders, example: Example, deep: Ranking, reranked: Ranking, kept: Ranking
) -> Iterator[Loss]:
    spans = search.expander.spans(kept.positions)
    for fact, share in zip(example.evidence, Gold(example.evidence).held_by(spans).shares, strict=True):
        if share == 1.0:
            continue
        holding = holders.of(fact)
        rank = _rank(deep, holding)
        stage = _stage(search, bool(holding), rank, _rank(reranked, holding))
        place = fact[0]
        yield Loss(example.id, example.question, place.quote, place.span.doc_id, stage, rank, share)


def _stage(search: Search, held: bool, rank: int | None, reranked: int | None) -> Stage:
    config = search.config
    if not held:
        return "splitter"
    if rank is None or rank > config.retrieve_k:
        return "retriever"
    if reranked is not None and reranked <= config.top_k:
        return "cutoff"
    return "reranker" if rank <= config.top_k else "top_k"


def _rank(ranking: Ranking, wanted: set[int]) -> int | None:
    """Rank of the first of some chunks, from 1."""
    return next((rank for rank, position in enumerate(ranking.positions.tolist(), 1) if position in wanted), None)
