"""Vectors that came with the documents, one for each line of a corpus.jsonl, by an embedder that the user names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from programs.embedding import Vectors
from programs.errors import RagwrightError

VECTORS, ABOUT = "vectors.npy", "vectors.json"


@dataclass(frozen=True, eq=False)
class BroughtVectors:
    """Vectors of whole documents.

    Attributes:
        file: Where they are.
        embedder: What made them, and makes the questions' vectors.
        rows: Document id -> row of the file.
    """

    file: Path
    embedder: str
    rows: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path, ids: Sequence[str]) -> Self | None:
        """What a data set brings: `vectors.npy` with `vectors.json`; None where it brings none.

        Args:
            folder: The data set.
            ids: Of the documents, in the order of the lines of corpus.jsonl.

        Raises:
            RagwrightError: They cannot be used.
        """
        file, about = folder / VECTORS, folder / ABOUT
        if not file.is_file():
            return None
        try:
            embedder = json.loads(about.read_text(encoding="utf-8"))["embedder"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise RagwrightError(f'{about}: must say {{"embedder": "..."}}, what made the vectors beside it.') from None
        found = _load(file)
        if found.ndim != 2 or len(found) != len(ids):
            raise RagwrightError(
                f"{file}: has the shape {found.shape}; needed is one row for each of {len(ids)} lines."
            )
        return cls(file, str(embedder), {doc_id: row for row, doc_id in enumerate(ids)})

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits over the vectors and the embedder's name."""
        digest = hashlib.sha256(self.embedder.encode())
        digest.update(np.ascontiguousarray(_load(self.file)).data)
        return digest.hexdigest()[:12]

    def of(self, doc_ids: Sequence[str]) -> Vectors:
        """The vectors of some documents, of length 1 (a zero stays a zero).

        Raises:
            RagwrightError: Some number in them is not finite.
        """
        rows = np.asarray(_load(self.file)[[self.rows[doc_id] for doc_id in doc_ids]], dtype=np.float32)
        if not np.isfinite(rows).all():
            raise RagwrightError(f"{self.file}: holds numbers that are not finite.")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: Vectors = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
        return unit


def _load(file: Path) -> Vectors:
    try:
        rows: Vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RagwrightError(f"{file}: no NumPy array ({error}); write it with numpy.save.") from None
    return rows
