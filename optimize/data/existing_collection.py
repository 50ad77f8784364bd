"""A data set folder over an existing Chroma collection: its records as documents, its vectors as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from programs.brought_vectors import ABOUT, VECTORS
from programs.collection import Collection, read_collection
from programs.embedding import open_embedder
from programs.errors import RagwrightError

AGREEMENT = 0.95
"""Least cosine between a stored vector and the named embedder's, for the embedder to be believed. Its own vectors come
back at 0.999 or more; half-precision storage and another batch size cost less than 0.01."""

_SAMPLE = 5


def write_collection(source: str, embedder: str, dataset: Path) -> list[str]:
    """Write a snapshot of a collection as the corpus of a data set folder.

    Args:
        source: See `read_collection`.
        embedder: What made the collection's vectors; it will make the questions'.
        dataset: An existing folder.

    Returns:
        What was done, a line each.

    Raises:
        RagwrightError: The collection cannot be read, or its vectors are not the embedder's.
    """
    collection = read_collection(source)
    _believe(collection, embedder, source)
    lines = [{"id": d.id, "title": d.title, "text": d.text, "metadata": dict(d.metadata)} for d in collection.documents]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (dataset / "corpus.jsonl").write_text(text, encoding="utf-8", newline="\n")
    np.save(dataset / VECTORS, collection.vectors, allow_pickle=False)
    (dataset / ABOUT).write_text(json.dumps({"embedder": embedder, "source": source}, indent=1) + "\n", "utf-8")
    left = f", {collection.without_text} records without text left out" if collection.without_text else ""
    return [f"{source}: {len(lines)} records with vectors of {collection.vectors.shape[1]} numbers{left}"]


def _believe(collection: Collection, embedder: str, source: str) -> None:
    """Embed a few records again and compare.

    Raises:
        RagwrightError: The stored vectors are others.
    """
    rows = np.linspace(0, len(collection.documents) - 1, min(_SAMPLE, len(collection.documents))).astype(int)
    ours = open_embedder(embedder).embed([collection.documents[row].text for row in rows])
    theirs = collection.vectors[rows]
    if ours.shape != theirs.shape:
        raise RagwrightError(
            f"{source}: its vectors have {theirs.shape[1]} numbers and those of {embedder!r} have {ours.shape[1]}; "
            "name the embedder that made them."
        )
    lengths = np.linalg.norm(theirs, axis=1)
    cosine = float(np.median((ours * theirs).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)))
    if cosine < AGREEMENT:
        raise RagwrightError(
            f"{source}: its vectors are not those of {embedder!r} (cosine {cosine:.2f} on {len(rows)} records); name "
            "the embedder that made them."
        )
