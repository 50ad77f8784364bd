"""The vectors of an index in Chroma, for programs in use: built once, then only read. Its search is approximate."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from programs.embedding import Vectors
from programs.errors import RagwrightError
from programs.exact import top
from programs.ranking import Ranking
from programs.types import Chunk

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

# With Chroma's defaults two builds of the same vectors find different neighbours; with these a search is all but exact
# (benchmarks/README.md). Rows after the last multiple of `sync_threshold` would be inserted anew at every opening.
HNSW = {"space": "cosine", "ef_construction": 400, "ef_search": 400, "max_neighbors": 48, "sync_threshold": 1}

_COLLECTION = "chunks"
_BATCH = 1000
# Repeated passages have equal scores, and Chroma picks any of them for the last places: so a few more are asked for.
_TIES = 20
# Chroma counts the clients of a folder without a lock of its own around opening and closing.
_CLIENTS = threading.RLock()


class VectorStore:
    """The vectors of one index.

    Args:
        folder: What `build_store` wrote.
        chunks: The chunks that must be there.

    Raises:
        RagwrightError: The folder holds something else.
    """

    def __init__(self, folder: Path, chunks: Sequence[Chunk]) -> None:
        import chromadb.errors

        client = open_client(folder)
        self._finalizer = weakref.finalize(self, close_client, client)
        self._positions = {chunk.id: position for position, chunk in enumerate(chunks)}
        try:
            self._collection = client.get_collection(_COLLECTION, embedding_function=None)
            found = self._collection.count()
        except chromadb.errors.ChromaError as error:
            raise RagwrightError(f"{folder}: the index is damaged ({error}); delete this folder.") from error
        if found != len(chunks):
            raise RagwrightError(f"{folder}: the index has {found} vectors for {len(chunks)} chunks; delete it.")

    def nearest(self, vectors: Vectors, k: int) -> list[Ranking]:
        """The `k` nearest chunks to each of `vectors`, with their cosine similarities; none for a vector of zeros."""
        asked = np.any(vectors, axis=1).tolist()
        if not any(asked):
            return [Ranking.empty() for _ in vectors]
        wanted = min(k + _TIES, len(self._positions))
        found = self._collection.query(query_embeddings=vectors[asked], n_results=wanted, include=["distances"])
        assert found["distances"] is not None
        answers = iter(zip(found["ids"], found["distances"], strict=True))
        return [self._ranking(*next(answers), k) if real else Ranking.empty() for real in asked]

    def _ranking(self, ids: list[str], distances: list[float], k: int) -> Ranking:
        positions = np.array([self._positions[chunk_id] for chunk_id in ids], dtype=np.intp)
        scores = 1.0 - np.asarray(distances, dtype=np.float32)
        order = np.argsort(positions)
        return top(positions[order], scores[order], k)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Release the files; a second call does nothing."""
        self._finalizer()


def build_store(folder: Path, chunks: Sequence[Chunk], vectors: Vectors) -> None:
    """Write chunks, with texts, spans and vectors, into a new Chroma folder.

    Args:
        folder: Exists and is empty.
        chunks: Their ids are unique.
        vectors: One row for each.
    """
    client = open_client(folder)
    try:
        settings: Any = {"hnsw": HNSW}
        collection = client.create_collection(_COLLECTION, configuration=settings, embedding_function=None)
        batch = min(_BATCH, client.get_max_batch_size())
        for start in range(0, len(chunks), batch):
            part = chunks[start : start + batch]
            collection.upsert(
                ids=[chunk.id for chunk in part],
                embeddings=np.asarray(vectors[start : start + batch]),
                documents=[chunk.text for chunk in part],
                metadatas=[_metadata(chunk) for chunk in part],
            )
    finally:
        close_client(client)


def chroma_version() -> str:
    """The installed version of Chroma."""
    return version("chromadb")


def _metadata(chunk: Chunk) -> dict[str, str | int]:
    span = chunk.span
    return {
        "doc_id": span.doc_id,
        "start": span.start,
        "end": span.end,
        "title": chunk.title,
        "headings": " > ".join(chunk.headings),
    }


def open_client(folder: Path) -> ClientAPI:
    """Chroma on a folder, without telemetry; give it back to `close_client`."""
    import chromadb
    from chromadb.config import Settings

    with _CLIENTS:
        return chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))


def close_client(client: Any) -> None:  # Chroma's interface does not declare what its clients have.
    """Release the files of a client."""
    with _CLIENTS:
        client.close()
