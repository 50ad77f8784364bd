"""A search: from a question to the passages that the LM reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.expansion import EXPANSIONS, Expander, open_expander
from programs.extraction import clean
from programs.index import Index, Progress, open_index
from programs.ranking import Ranking
from programs.reranking import Reranker, check_reranker, open_reranker
from programs.retrieval import RETRIEVERS, Retriever
from programs.summaries import Summarizer
from programs.tokens import count_all
from programs.types import Passage


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Retrieves `retrieve_k` chunks, reranks them, keeps the best `top_k` and widens them to passages.

    Safe to call from many threads.

    Attributes:
        config: Canonical.
        index: Holds the chunks.
        retriever: Made from the index.
        reranker: Made from the index.
        expander: Made from the index.
    """

    config: PipelineConfig
    index: Index
    retriever: Retriever
    reranker: Reranker
    expander: Expander

    def __call__(self, question: str) -> tuple[Passage, ...]:
        """At most `top_k` passages, best first; none where nothing matches.

        Raises:
            RagwrightError: The embedder or the reranker fails.
        """
        question = clean(question)
        retrieved = self.retriever.retrieve([question], self.config.retrieve_k)
        # A cut-off is measured against the weakest of all that was retrieved.
        depth = self.config.retrieve_k if self.config.cutoff else self.config.top_k
        reranked = self.reranker.rerank([question], retrieved, depth)
        return self.expander.passages(self.keep(reranked)[0])

    def keep(self, reranked: Sequence[Ranking]) -> list[Ranking]:
        """What the LM will read of what was retrieved and reranked."""
        return [cut_off(ranking, self.config.cutoff).first(self.config.top_k) for ranking in reranked]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # DSPy's optimizers copy programs whole; a search has no state to copy.
        return self


def cut_off(ranking: Ranking, cutoff: float) -> Ranking:
    """The ranking without the chunks that score below a share of the way from its weakest to its best."""
    if not cutoff or not len(ranking):
        return ranking
    weakest, best = ranking.scores[-1], ranking.scores[0]
    return ranking.first(int(np.count_nonzero(ranking.scores >= weakest + cutoff * (best - weakest))))


def open_search(
    runs: Path,
    corpus: Corpus,
    config: PipelineConfig,
    progress: Progress | None = None,
    *,
    served: bool = False,
    summarizer: Summarizer | None = None,
) -> Search:
    """The search of a configuration, with its index built where it is not there yet.

    Args:
        runs: The folder that everything is kept under.
        corpus: What is searched.
        config: Everything but `prompt_format` matters.
        progress: Called with the numbers of embedded chunks and of all chunks while an index is built.
        served: Search vectors in Chroma; see `open_index`.
        summarizer: Writes the context prefixes of the kind `summary`.

    Raises:
        RagwrightError: A setting is unknown or out of range, parts do not fit together, or the embedder fails.
    """
    config = config.canonical()
    _check("retriever", config.retriever, RETRIEVERS)
    _check("expansion", config.expansion, EXPANSIONS)
    check_reranker(config.reranker)
    if config.top_k < 1:
        raise RagwrightError(f"top_k: at least 1 passage must be asked for, got {config.top_k!r}.")
    if config.needs_vectors and config.embedder == "none":
        raise RagwrightError(
            "embedder: 'none' goes only with sparse retrieval without mmr; choose wordllama or an API."
        )
    index = open_index(runs, corpus, config, progress, served=served, summarizer=summarizer)
    expander = open_expander(config.expansion, index.chunks, index.documents, config.splitter, config.chunk_size)
    return Search(
        config, index, RETRIEVERS[config.retriever](index, config), open_reranker(config.reranker, index), expander
    )


def _check(setting: str, name: str, table: Collection[str]) -> None:
    if name not in table:
        raise RagwrightError(f"{setting}: {name!r} is unknown; choose one of {', '.join(table)}.")


def context_tokens(passages: Iterable[Passage]) -> int:
    """Number of tokens of the passages' texts, by the counting tokenizer."""
    return sum(count_all([passage.text for passage in passages]))
