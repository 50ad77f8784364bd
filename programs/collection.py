"""An existing Chroma collection, read once and never written to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from programs.embedding import Vectors
from programs.errors import RagwrightError
from programs.extraction import clean
from programs.types import Document
from programs.vector_store import close_client, open_client

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_PAGE = 1000


@dataclass(frozen=True, eq=False)
class Collection:
    """The records of a collection that have text.

    Attributes:
        documents: One for each record, in the collection's order.
        vectors: Their vectors, one row each, as they are stored.
        without_text: Number of records left out for want of text.
    """

    documents: tuple[Document, ...]
    vectors: Vectors
    without_text: int


def read_collection(source: str) -> Collection:
    """Read all records of a collection.

    A local store is opened as a copy, because opening it with another version of Chroma can change it.

    Args:
        source: `FOLDER::NAME`, or `http://HOST:PORT::NAME` for a server.

    Raises:
        RagwrightError: There is no such store or collection, or no record has text.
    """
    place, _, name = source.rpartition("::")
    if not place or not name:
        raise RagwrightError(f"{source!r}: name a collection as FOLDER::NAME or http://HOST:PORT::NAME.")
    with _client(place) as client:
        return _read(client, place, name)


@contextmanager
def _client(place: str) -> Iterator[ClientAPI]:
    if place.startswith(("http://", "https://")):
        client = _server(place)
        try:
            yield client
        finally:
            close_client(client)
        return
    folder = Path(place)
    if not (folder / "chroma.sqlite3").is_file():
        raise RagwrightError(f"{folder}: no Chroma store; its folder holds a file chroma.sqlite3.")
    with tempfile.TemporaryDirectory(prefix="ragwright-") as aside:
        copy = Path(aside) / "store"
        shutil.copytree(folder, copy)
        client = open_client(copy)
        try:
            yield client
        finally:
            close_client(client)


def _server(place: str) -> ClientAPI:
    import chromadb
    from chromadb.config import Settings

    url = urlsplit(place)
    try:
        return chromadb.HttpClient(
            url.hostname or "",
            url.port or (443 if url.scheme == "https" else 8000),
            ssl=url.scheme == "https",
            settings=Settings(anonymized_telemetry=False),
        )
    except (ValueError, OSError):
        raise RagwrightError(f"{place}: no Chroma server answers there.") from None


def _read(client: ClientAPI, place: str, name: str) -> Collection:
    import chromadb.errors

    try:
        collection = client.get_collection(name, embedding_function=None)
    except (chromadb.errors.ChromaError, ValueError):
        known = ", ".join(sorted(found.name for found in client.list_collections())) or "none"
        raise RagwrightError(f"{place}: no collection {name!r}; there: {known}.") from None
    documents: list[Document] = []
    vectors: list[Any] = []
    size = collection.count()
    for start in range(0, size, _PAGE):
        page = collection.get(limit=_PAGE, offset=start, include=["documents", "metadatas", "embeddings"])
        found, rows = _page(page)
        documents += found
        vectors += rows
    if not documents:
        raise RagwrightError(f"{place}::{name}: none of {size} records has text, so there is nothing to hand to an LM.")
    return Collection(tuple(documents), np.asarray(vectors, dtype=np.float32), size - len(documents))


def _page(page: Any) -> tuple[list[Document], list[Any]]:
    """The records of a page that have text, and their vectors."""
    texts = page["documents"] or [None] * len(page["ids"])
    about = page["metadatas"] or [None] * len(page["ids"])
    documents, vectors = [], []
    for record_id, text, metadata, vector in zip(page["ids"], texts, about, page["embeddings"], strict=True):
        if text and text.strip():
            known = dict(metadata or {})
            documents.append(Document(record_id, clean(text), str(known.get("title", "")), known))
            vectors.append(vector)
    return documents, vectors
