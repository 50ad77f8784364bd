"""Retrieval configurations scored on many questions at once, sharing whatever they have in common."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimize.data.example import Example
from optimize.measures.spans import precision_omega
from optimize.measures.table import Measure, Scorer
from optimize.runs.run_dir import write_whole
from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.extraction import clean
from programs.index import Progress
from programs.ranking import Ranking
from programs.reranking import LISTWISE
from programs.retrieval import FUSION_DEPTH, DenseRetriever, FusedRetriever, Retriever
from programs.search import Search, open_search

T = TypeVar("T")

_TIMED_QUESTIONS = 3
# So many rankings of all questions are kept, and searches that have so many chunks together.
_KEPT, _CHUNKS_KEPT = 64, 150_000


@dataclass(frozen=True)
class Scores:
    """What one configuration is worth.

    Attributes:
        values: Questions x measures; NaN where a question is not scored.
        tokens: Context tokens of each question.
        latency_ms: Milliseconds that one question takes on its own, with nothing cached: the median of a few.
    """

    values: NDArray[np.float64]
    tokens: NDArray[np.int64]
    latency_ms: float


class RetrievalBench:
    """Scores retrieval, all questions at once and without an LM.

    Configurations that share an index, a ranking or its reranking share the work, so score those together that differ
    in their last steps only.

    Args:
        corpus: What is searched.
        runs: The folder that indexes and caches are kept under.
        examples: The questions.
        measures: What is measured; `context_tokens` and `latency_ms` come by themselves.
        deepest: The largest `retrieve_k` and `top_k` that will be asked for.
        progress: Called with the numbers of embedded chunks and of all chunks while vectors are made.
    """

    def __init__(
        self,
        corpus: Corpus,
        runs: Path,
        examples: Sequence[Example],
        measures: Sequence[Measure],
        deepest: int,
        progress: Progress | None = None,
    ) -> None:
        self._corpus, self._runs, self._examples, self._progress = corpus, runs, examples, progress
        self.questions = [clean(example.question) for example in examples]
        self._scorer, self._measures = Scorer(examples, measures), tuple(measures)
        self._deepest, self._depth = deepest, max(deepest, FUSION_DEPTH)
        self._memo: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._searches: OrderedDict[str, Search] = OrderedDict()
        self._seconds = _Latencies(runs / "cache" / "latencies.json")
        # With an ending of their own, so that no cache knows them.
        self._asked = [f"{question} {secrets.token_hex(2)}" for question in self.questions[:_TIMED_QUESTIONS]]

    def score(self, config: PipelineConfig) -> Scores:
        """Score one configuration.

        Raises:
            RagwrightError: A part of it does not fit, or a model fails.
        """
        search = self.search(config)
        ranked = self.selected(search)
        spans = [search.expander.spans(ranking.positions) for ranking in ranked]
        given = {str(m): self._omega(search) for m in self._measures if str(m) == "precision_omega"}
        values = self._scorer.score(spans, given)
        tokens = np.array([search.expander.tokens(found) for found in spans], dtype=np.int64)
        return Scores(values, tokens, 1000 * self._latency(search))

    def search(self, config: PipelineConfig) -> Search:
        """The opened search of a configuration."""
        config = config.canonical()
        key = config.fingerprint()
        if key not in self._searches:
            self._searches[key] = open_search(self._runs, self._corpus, config, self._progress)
        self._searches.move_to_end(key)
        while len(self._searches) > 1 and self._chunks_held() > _CHUNKS_KEPT:
            self._searches.popitem(last=False)
        return self._searches[key]

    def _chunks_held(self) -> int:
        """Chunks of all searches that are kept; those of one chunking are there once."""
        held = {search.index.folder: len(search.index.chunks) for search in self._searches.values()}
        return sum(held.values())

    def retrieved(self, search: Search) -> list[Ranking]:
        """What the reranker receives, for every question."""
        return [ranking.first(search.config.retrieve_k) for ranking in self._retrieved(search)]

    def selected(self, search: Search) -> list[Ranking]:
        """What the LM would receive, for every question."""
        config = search.config
        if config.reranker == "none" and not config.cutoff:
            return self.retrieved(search)
        return search.keep(self.reranked(search))

    def reranked(self, search: Search) -> list[Ranking]:
        """All that was retrieved, in the reranker's order, for every question."""
        config = search.config
        if config.reranker in LISTWISE:
            return self._once("reranked", _reranking(search), lambda: self._rerank(search, config.retrieve_k))
        key = f"{_retrieval(search)} {config.reranker}"
        deep = self._once("reranked", key, lambda: self._rerank(search, self._deepest))
        if config.retrieve_k >= self._deepest:
            return deep
        return list(_among(deep, self.retrieved(search), len(search.index.chunks)))

    def _retrieved(self, search: Search) -> list[Ranking]:
        return self._once("retrieved", _retrieval(search), lambda: self._retrieve(search))

    def _retrieve(self, search: Search) -> list[Ranking]:
        retriever = search.retriever
        if not isinstance(retriever, FusedRetriever):
            return self._part(search, retriever)
        parts = [self._part(search, part) for part in retriever.retrievers]
        return [retriever.fuse(rankings, self._depth) for rankings in zip(*parts, strict=True)]

    def _part(self, search: Search, retriever: Retriever) -> list[Ranking]:
        """What one retriever finds by itself: the same whatever it is fused with."""
        vectors = search.index.key if isinstance(retriever, DenseRetriever) else ""
        key = f"{search.index.folder.name} {vectors} {search.config.filter}"
        return self._once("part", key, lambda: retriever.retrieve(self.questions, self._depth))

    def _rerank(self, search: Search, depth: int) -> list[Ranking]:
        retrieved = [ranking.first(depth) for ranking in self._retrieved(search)]
        return search.reranker.rerank(self.questions, retrieved, depth)

    def _omega(self, search: Search) -> NDArray[np.float64]:
        chunks = search.index.chunks
        return self._once(
            "omega", search.index.folder.name, lambda: precision_omega(self._examples, [c.span for c in chunks])
        )

    def _latency(self, search: Search) -> float:
        """Seconds of one question: embedding, then retrieval and reranking, each timed once for all that share it."""
        embedder, depth = search.index.embedder, search.config.retrieve_k
        seconds = 0.0
        if embedder is not None:
            seconds += self._timed("embedding", embedder.identity, lambda asked: embedder.embed_questions([asked]))

        def work(asked: str) -> None:
            search.reranker.rerank([asked], search.retriever.retrieve([asked], depth), depth)

        return seconds + self._timed("search", _reranking(search), work)

    def _timed(self, stage: str, key: str, work: Callable[[str], object]) -> float:
        def measure() -> float:
            times = []
            for question in self._asked:
                begun = time.perf_counter()
                work(question)
                times.append(time.perf_counter() - begun)
            return median(times) if times else 0.0

        return self._seconds.of(f"{stage} {key}", measure)

    def _once(self, kind: str, key: str, make: Callable[[], T]) -> T:
        """What was made before under this key, or a new one; the last few of each kind are kept."""
        if (kind, key) not in self._memo:
            self._memo[kind, key] = make()
            same = [entry for entry in self._memo if entry[0] == kind]
            if len(same) > _KEPT:
                del self._memo[same[0]]
        self._memo.move_to_end((kind, key))
        found: T = self._memo[kind, key]
        return found


class _Latencies:
    """What a step takes on this machine, measured once: a clock differs from run to run, and what is chosen with it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._machine = f"{platform.node()} {platform.machine()} {os.cpu_count()}"
        try:
            self._known: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            self._known = {}

    def of(self, step: str, measure: Callable[[], float]) -> float:
        """Seconds of a step."""
        key = f"{self._machine} {step}"
        if key not in self._known:
            self._known[key] = measure()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, json.dumps(self._known, indent=0) + "\n")
        return self._known[key]


def _among(reranked: Sequence[Ranking], found: Sequence[Ranking], chunks: int) -> Iterator[Ranking]:
    """The part of each ranking that was found: equals what reranking only that would have given."""
    wanted = np.zeros(chunks, dtype=bool)
    for ranking, part in zip(reranked, found, strict=True):
        wanted[part.positions] = True
        kept = wanted[ranking.positions]
        wanted[part.positions] = False
        yield Ranking(ranking.positions[kept], ranking.scores[kept])


def _retrieval(search: Search) -> str:
    config = search.config
    return f"{search.index.key} {config.retriever} {config.dense_weight} {config.filter}"


def _reranking(search: Search) -> str:
    return f"{_retrieval(search)} {search.config.retrieve_k} {search.config.reranker}"
