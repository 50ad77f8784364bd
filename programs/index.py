"""The index of a corpus under one chunking and one embedder: chunks, their vectors in Chroma, their terms in memory.

An index is built once, in a folder beside its place, and moved there when it is complete; after that it never changes.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np

from programs.config import PipelineConfig, fingerprint
from programs.corpus import Corpus
from programs.embedding import Embedder, Vectors, embedder_identity, open_embedder
from programs.errors import RagwrightError
from programs.sparse import SparseIndex
from programs.splitting import SPLITTER_VERSION, check_splitting, split
from programs.tokens import TOKENIZER_NAME, count_tokens
from programs.types import Chunk, Span
from programs.vector_store import HNSW, VectorStore, build_vectors, chroma_version

Progress = Callable[[int, int], None]

_META, _CHUNKS = "meta.json", "chunks.jsonl"
# Repeated passages have equal scores, and Chroma picks any of them for the last places: so a few more are asked for.
_TIES = 20
_OPEN: WeakValueDictionary[Path, Index] = WeakValueDictionary()


class Index:
    """Chunks that can be searched by vector and by words. Safe to use from many threads; get one from `open_index`.

    Attributes:
        key: Names the index; see `index_key`.
        chunks: In the order of documents and spans. Ties in scores are broken by this order.
        positions: The place of each chunk id in `chunks`.
        embedder: What made the vectors; None for an index without vectors.
    """

    def __init__(self, key: str, chunks: Sequence[Chunk], embedder: Embedder | None, store: VectorStore | None) -> None:
        self.key = key
        self.chunks = tuple(chunks)
        self.embedder = embedder
        self._store = store
        self._sparse: SparseIndex | None = None
        self._lock = threading.Lock()
        self.positions = {chunk.id: position for position, chunk in enumerate(self.chunks)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # DSPy's optimizers copy programs whole; an index is immutable and shared.
        return self

    def search(self, vector: Vectors, k: int) -> list[tuple[Chunk, float]]:
        """The `k` chunks whose vectors are nearest, fewer where there are fewer, best first.

        Args:
            vector: As `embedder` makes it. A vector of zeros is near to nothing and finds nothing.
            k: At least 1.

        Returns:
            Pairs of chunk and cosine similarity, in [-1, 1].

        Raises:
            RagwrightError: `k` is below 1 or the index has no vectors.
        """
        check_k(k)
        if not np.any(vector):
            return []
        found = self._vectors().nearest(vector, min(k + _TIES, len(self.chunks)))
        return self.ranked({self.positions[chunk_id]: score for chunk_id, score in found.items()}, k)

    def ranked(self, scores: dict[int, float], k: int) -> list[tuple[Chunk, float]]:
        """The `k` best of scored chunk positions, with their chunks; equal scores in the order of the chunks."""
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
        return [(self.chunks[position], score) for position, score in best]

    def vectors(self, chunks: Sequence[Chunk]) -> Vectors:
        """The vectors of chunks of this index, one row each.

        Raises:
            RagwrightError: The index has no vectors.
        """
        return self._vectors().rows([chunk.id for chunk in chunks])

    @property
    def sparse(self) -> SparseIndex:
        """BM25 over the chunks, numbered as in `chunks`; made at its first use."""
        with self._lock:
            if self._sparse is None:
                self._sparse = SparseIndex([chunk.text for chunk in self.chunks])
            return self._sparse

    @property
    def closed(self) -> bool:
        """Whether `close` was called and there was something to release."""
        return self._store is not None and self._store.closed

    def close(self) -> None:
        """Release the files; also happens by itself when nothing refers to the index any more."""
        if self._store is not None:
            self._store.close()

    def _vectors(self) -> VectorStore:
        if self._store is None:
            raise RagwrightError(
                "embedder: 'none' makes no vectors; dense and hybrid retrieval and mmr need an embedder."
            )
        return self._store


def check_k(k: int) -> None:
    """Refuse a number of results below 1.

    Raises:
        RagwrightError: It is below 1.
    """
    if k < 1:
        raise RagwrightError(f"k: at least 1 result must be asked for, got {k!r}.")


def index_key(corpus: Corpus, config: PipelineConfig) -> str:
    """Twelve hex digits that name the index: equal for configurations that can share one.

    Raises:
        RagwrightError: The embedder is unknown.
    """
    config = config.canonical()
    vectors = None if config.embedder == "none" else [embedder_identity(config.embedder), HNSW]
    return fingerprint([_chunking(corpus, config), vectors])


def open_index(root: Path, corpus: Corpus, config: PipelineConfig, progress: Progress | None = None) -> Index:
    """The index that a configuration needs: the one already open in this process, the one on disk, or a new one.

    Several threads and processes may ask at once: one builds, the others wait for it.

    Args:
        root: The folder of all indexes.
        corpus: What is indexed.
        config: Only what concerns chunks and vectors matters.
        progress: Called with the numbers of embedded chunks and of all chunks while an index is built.

    Raises:
        RagwrightError: A setting is out of range, or the embedder fails.
    """
    from filelock import FileLock

    config = config.canonical()
    check_splitting(config.splitter, config.chunk_size, config.chunk_overlap)
    key = index_key(corpus, config)
    folder = root.resolve() / key
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{key}.lock")):
        opened = _OPEN.get(folder)
        complete = _is_complete(folder)
        if opened is not None and complete and not opened.closed:
            return opened
        if opened is not None:
            opened.close()
        if not complete:
            _build(folder, corpus, config, progress)
        index = _OPEN[folder] = _read(folder, config)
        return index


def _chunking(corpus: Corpus, config: PipelineConfig) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "corpus": corpus.fingerprint,
        "splitter": config.splitter,
        "chunk_size": config.chunk_size,
        "chunk_overlap": config.chunk_overlap,
        "tokenizer": TOKENIZER_NAME,
        "versions": [SPLITTER_VERSION, version("chonkie"), version("markdown-it-py"), version("wordllama")],
    }


def _is_complete(folder: Path) -> bool:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(meta, dict) and meta.get("status") == "complete" and (folder / _CHUNKS).is_file()


def _build(folder: Path, corpus: Corpus, config: PipelineConfig, progress: Progress | None) -> None:
    """Write an index beside `folder`, then put it in place of whatever incomplete one is there."""
    aside = folder.with_name(f".{folder.name}.building")
    # Left by a builder that was killed: the lock is held, so nobody is at work there.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        settings = (config.splitter, config.chunk_size, config.chunk_overlap, count_tokens)
        chunks = [chunk for document in corpus.documents for chunk in split(document, *settings)]
        (aside / _CHUNKS).write_text("".join(map(_to_line, chunks)), encoding="utf-8")
        if config.embedder != "none":
            build_vectors(aside, chunks, open_embedder(config.embedder), progress)
        meta = {
            "status": "complete",
            "key": folder.name,
            "chunks": len(chunks),
            "chunking": _chunking(corpus, config),
            "embedder": config.embedder,
            "vectors": None if config.embedder == "none" else {"hnsw": HNSW, "chromadb": chroma_version()},
        }
        (aside / _META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _read(folder: Path, config: PipelineConfig) -> Index:
    lines = (folder / _CHUNKS).read_text(encoding="utf-8").split("\n")
    chunks = [_from_line(line) for line in lines if line]
    if config.embedder == "none":
        return Index(folder.name, chunks, None, None)
    return Index(folder.name, chunks, open_embedder(config.embedder), VectorStore(folder, len(chunks)))


def _to_line(chunk: Chunk) -> str:
    return json.dumps(asdict(chunk), ensure_ascii=False) + "\n"


def _from_line(line: str) -> Chunk:
    record = json.loads(line)
    return Chunk(record["id"], Span(**record["span"]), record["text"], record["title"])
