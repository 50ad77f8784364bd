"""What a retriever found before reranking, had again from the index that a study leaves: no LM call, nothing built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from programs.config import PipelineConfig, fingerprint
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.extraction import clean
from programs.types import Span

if TYPE_CHECKING:
    from programs.index import Index
    from programs.retrieval import Retriever


class Retracing:
    """Searches again, for the question as it was asked.

    Args:
        runs: The folder that indexes are kept under.
        corpus: What is searched.
        program: Its name; only `rag` searches by the question itself.
    """

    def __init__(self, runs: Path, corpus: Corpus, program: str) -> None:
        self._runs, self._corpus, self._program = runs, corpus, program
        self._opened: tuple[str, Index, Retriever] | None = None

    def retrieved(self, config: PipelineConfig, question: str) -> Sequence[Span] | None:
        """Where the `retrieve_k` chunks lie, best first; None where they cannot be had."""
        try:
            found = self._open(config)
            if found is None:
                return None
            index, retriever = found
            [ranking] = retriever.retrieve([clean(question)], config.retrieve_k)
        except RagwrightError:
            return None
        return [index.chunks[position].span for position in ranking.positions.tolist()]

    def _open(self, config: PipelineConfig) -> tuple[Index, Retriever] | None:
        from programs.chunking import chunking_settings
        from programs.index import open_index
        from programs.prefix import NEEDS_LM
        from programs.retrieval import RETRIEVERS

        key = config.fingerprint()
        if self._opened is not None and self._opened[0] == key:
            return self._opened[1:]
        if self._program != "rag" or config.context_prefix in NEEDS_LM:
            return None
        folder = self._runs.resolve() / "indexes" / fingerprint(chunking_settings(self._corpus, config.canonical()))
        if not (folder / "meta.json").is_file():
            return None
        index = open_index(self._runs, self._corpus, config)
        self._opened = (key, index, RETRIEVERS[config.retriever](index, config))
        return self._opened[1:]
