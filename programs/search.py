"""A search: from a question to the passages that the LM reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.extraction import clean
from programs.index import Index, Progress, open_index
from programs.reranking import RERANKERS, Reranker
from programs.retrieval import RETRIEVERS, Retriever
from programs.tokens import count_all
from programs.types import Passage

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Retrieves `retrieve_k` passages, reranks them and keeps the best `top_k`. Safe to call from many threads.

    Attributes:
        config: Canonical.
        index: Holds the chunks.
        retriever: Made from the index.
        reranker: Made from the index.
    """

    config: PipelineConfig
    index: Index
    retriever: Retriever
    reranker: Reranker

    def __call__(self, question: str) -> tuple[Passage, ...]:
        """At most `top_k` passages, best first; none where nothing matches.

        Raises:
            RagwrightError: The embedder fails.
        """
        question = clean(question)
        retrieved = self.retriever.retrieve(question, self.config.retrieve_k)
        return tuple(self.reranker.rerank(question, retrieved, self.config.top_k))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # DSPy's optimizers copy programs whole; a search has no state to copy.
        return self


def open_search(root: Path, corpus: Corpus, config: PipelineConfig, progress: Progress | None = None) -> Search:
    """The search of a configuration, with its index built where it is not there yet.

    Args:
        root: The folder of all indexes.
        corpus: What is searched.
        config: Everything but `prompt_format` matters.
        progress: Called with the numbers of embedded chunks and of all chunks while an index is built.

    Raises:
        RagwrightError: A setting is unknown or out of range, parts do not fit together, or the embedder fails.
    """
    config = config.canonical()
    make_retriever = _choice("retriever", config.retriever, RETRIEVERS)
    make_reranker = _choice("reranker", config.reranker, RERANKERS)
    if config.top_k < 1:
        raise RagwrightError(f"top_k: at least 1 passage must be asked for, got {config.top_k!r}.")
    needs_vectors = config.retriever != "sparse" or config.reranker == "mmr"
    if needs_vectors and config.embedder == "none":
        raise RagwrightError(
            "embedder: 'none' goes only with sparse retrieval without mmr; choose wordllama or an API."
        )
    index = open_index(root, corpus, config, progress)
    return Search(config, index, make_retriever(index), make_reranker(index))


def context_tokens(passages: Iterable[Passage]) -> int:
    """Number of tokens of the passages' texts, by the counting tokenizer."""
    return sum(count_all([passage.text for passage in passages]))


def _choice(setting: str, name: str, table: Mapping[str, Callable[[Index], Part]]) -> Callable[[Index], Part]:
    if name not in table:
        raise RagwrightError(f"{setting}: {name!r} is unknown; choose one of {', '.join(table)}.")
    return table[name]
