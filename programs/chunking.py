"""From a corpus to the chunks of an index: split, prefixed, and read for their terms."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.prefix import NEEDS_LM, PREFIXES, prefixes
from programs.sparse import SparseIndex
from programs.splitting import SPLITTER_VERSION, check_splitting, split
from programs.summaries import Summarizer
from programs.terms import CorpusTerms
from programs.tokens import TOKENIZER_NAME, count_tokens
from programs.types import Chunk

TERMS_VERSION = "1"
VERSIONS = (SPLITTER_VERSION, TERMS_VERSION, *map(version, ("markdown-it-py", "wordllama")))
"""What made the chunks and their terms."""

# The terms of the corpus read last: many chunkings of one corpus are made one after another.
_TERMS: dict[str, CorpusTerms] = {}
_READING = threading.Lock()


def chunking_settings(corpus: Corpus, config: PipelineConfig, lm: str = "") -> dict[str, Any]:
    """Everything that chunks, their prefixes and their terms depend on.

    Args:
        corpus: What is split.
        config: How.
        lm: Names the LM that writes the prefixes of the kind `summary`; no other kind depends on it.

    Raises:
        RagwrightError: The splitter or the prefix is unknown or a number is out of range.
    """
    check_splitting(config.splitter, config.chunk_size, config.chunk_overlap)
    if config.context_prefix not in PREFIXES:
        raise RagwrightError(
            f"context_prefix: {config.context_prefix!r} is unknown; choose one of {', '.join(PREFIXES)}."
        )
    if config.context_prefix in NEEDS_LM and not lm:
        raise RagwrightError(f"context_prefix: {config.context_prefix} is written by an LM, and here is none.")
    return {
        "summaries": lm if config.context_prefix in NEEDS_LM else "",
        "corpus": corpus.fingerprint,
        "splitter": config.splitter,
        "chunk_size": config.chunk_size,
        "chunk_overlap": config.chunk_overlap,
        "context_prefix": config.context_prefix,
        "tokenizer": TOKENIZER_NAME,
        "versions": VERSIONS,
    }


def make_chunks(
    corpus: Corpus, config: PipelineConfig, summarizer: Summarizer | None = None
) -> tuple[list[Chunk], list[str], SparseIndex]:
    """The chunks of all documents in order, the prefix of each, and their terms."""
    chunks: list[Chunk] = []
    before: list[str] = []
    for document in corpus.documents:
        found = split(document, config.splitter, config.chunk_size, config.chunk_overlap, count_tokens)
        chunks += found
        if config.context_prefix in NEEDS_LM:
            assert summarizer is not None, "the settings ask for one"
            before += summarizer.prefixes(document, found)
        else:
            before += prefixes(document, found, config.context_prefix)
    return chunks, before, _sparse(corpus, chunks, before)


def _sparse(corpus: Corpus, chunks: Sequence[Chunk], before: Sequence[str]) -> SparseIndex:
    with _READING:
        if corpus.fingerprint not in _TERMS:
            _TERMS.clear()
            _TERMS[corpus.fingerprint] = CorpusTerms(corpus)
        terms = _TERMS[corpus.fingerprint]
        numbers = []
        for chunk, prefix in zip(chunks, before, strict=True):
            own = terms.ids(chunk.span.doc_id, chunk.span.start, chunk.span.end)
            numbers.append([*terms.ids_of(prefix), *own] if prefix else own)
        return SparseIndex.build(numbers, terms.vocabulary)
