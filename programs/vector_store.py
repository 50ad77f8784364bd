"""Vectors of chunks in a Chroma folder: written once, then only read."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from programs.embedding import Embedder, Vectors
from programs.errors import RagwrightError
from programs.types import Chunk

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

# With Chroma's defaults two builds of the same vectors find different neighbours; with these a search is all but exact.
HNSW = {"space": "cosine", "ef_construction": 400, "ef_search": 400, "max_neighbors": 48}

_COLLECTION = "chunks"
_BATCH = 1000
# Chroma counts the clients of a folder without a lock of its own around opening and closing.
_CLIENTS = threading.RLock()


class VectorStore:
    """The vectors of one index.

    Args:
        folder: What `build_vectors` wrote.
        size: Number of vectors that must be there.

    Raises:
        RagwrightError: The folder holds something else.
    """

    def __init__(self, folder: Path, size: int) -> None:
        import chromadb.errors

        client = _open_client(folder)
        self._finalizer = weakref.finalize(self, _close_client, client)
        try:
            self._collection = client.get_collection(_COLLECTION, embedding_function=None)
            found = self._collection.count()
        except chromadb.errors.ChromaError as error:
            raise RagwrightError(f"{folder}: the index is damaged ({error}); delete this folder.") from error
        if found != size:
            raise RagwrightError(f"{folder}: the index has {found} vectors for {size} chunks; delete this folder.")

    def nearest(self, vector: Vectors, k: int) -> dict[str, float]:
        """Ids of the `k` nearest chunks with their cosine similarity; `k` is at most the number of vectors."""
        found = self._collection.query(query_embeddings=vector, n_results=k, include=["distances"])
        distances = found["distances"]
        assert distances is not None
        return {chunk_id: 1.0 - distance for chunk_id, distance in zip(found["ids"][0], distances[0], strict=True)}

    def rows(self, ids: Sequence[str]) -> Vectors:
        """The vectors of the chunks with these ids, one row each."""
        found = self._collection.get(ids=list(ids), include=["embeddings"])
        embeddings = found["embeddings"]
        assert embeddings is not None and len(embeddings) == len(set(ids))
        by_id = dict(zip(found["ids"], embeddings, strict=True))
        return np.asarray([by_id[chunk_id] for chunk_id in ids], dtype=np.float32)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Release the files; a second call does nothing."""
        self._finalizer()


def build_vectors(
    folder: Path, chunks: Sequence[Chunk], embedder: Embedder, progress: Callable[[int, int], None] | None = None
) -> None:
    """Embed all chunks and write them, with texts and spans, into a new Chroma folder.

    Args:
        folder: Exists and holds no Chroma files.
        chunks: Their ids are unique.
        embedder: Makes the vectors.
        progress: Called with the numbers of embedded chunks and of all chunks.
    """
    client = _open_client(folder)
    try:
        settings: Any = {"hnsw": HNSW}
        collection = client.create_collection(_COLLECTION, configuration=settings, embedding_function=None)
        batch = min(_BATCH, client.get_max_batch_size())
        for start in range(0, len(chunks), batch):
            part = chunks[start : start + batch]
            collection.upsert(
                ids=[chunk.id for chunk in part],
                embeddings=embedder.embed([chunk.text for chunk in part]),
                documents=[chunk.text for chunk in part],
                metadatas=[_metadata(chunk) for chunk in part],
            )
            if progress is not None:
                progress(start + len(part), len(chunks))
    finally:
        _close_client(client)


def chroma_version() -> str:
    """The installed version of Chroma."""
    return version("chromadb")


def _metadata(chunk: Chunk) -> dict[str, str | int]:
    return {"doc_id": chunk.span.doc_id, "start": chunk.span.start, "end": chunk.span.end, "title": chunk.title}


def _open_client(folder: Path) -> ClientAPI:
    import chromadb
    from chromadb.config import Settings

    with _CLIENTS:
        return chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))


def _close_client(client: Any) -> None:  # Chroma's interface does not declare what its clients have.
    with _CLIENTS:
        client.close()
