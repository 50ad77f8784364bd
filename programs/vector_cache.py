"""Vectors of texts, kept on disk: what a model embedded once it never embeds again."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from programs.errors import RagwrightError

Vectors = NDArray[np.float32]

_FLOAT = np.dtype("<f4")
# As many keys as every build of SQLite takes in one query.
_KEYS_AT_ONCE = 900
# A vector lies in few pages: with SQLite's 4 KiB writing takes twice as long.
_PAGE = 16_384
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
)


class VectorCache:
    """A table from the key of a text to its vector, in one SQLite file. Thread-safe; processes may share the file.

    Every vector has length 1 or is all zeros; a row that is neither is damaged and counts as missing. Every `put` is a
    transaction of its own in write-ahead mode: a killed process loses at most the call it was making.

    Args:
        path: The file; it and its folder are made when missing.

    Raises:
        RagwrightError: The file is not such a cache, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._dimensions: int | None = None
        with self._explained("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            # Embedders hold the cache for as long as they live, and nobody is told when that ends.
            weakref.finalize(self, self._connection.close)
            self._connection.execute(f"PRAGMA page_size = {_PAGE}")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            for statement in _SCHEMA:
                self._connection.execute(statement)

    @property
    def dimensions(self) -> int | None:
        """Length of the vectors; None while there are none."""
        if self._dimensions is None:
            with self._explained("read"), self._lock:
                row = self._connection.execute("SELECT value FROM facts WHERE name = 'dimensions'").fetchone()
            self._dimensions = int(row[0]) if row else None
        return self._dimensions

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """The vectors of those keys that are there.

        Raises:
            RagwrightError: The file is damaged.
        """
        if self.dimensions is None:
            return {}
        with self._explained("read"), self._lock:
            blobs = {key: blob for part in _parts(keys) for key, blob in self._select(part)}
        size = self.dimensions * _FLOAT.itemsize
        whole = [key for key, blob in blobs.items() if isinstance(blob, bytes) and len(blob) == size]
        matrix = np.frombuffer(b"".join(blobs[key] for key in whole), dtype=_FLOAT).reshape(len(whole), self.dimensions)
        with np.errstate(all="ignore"):
            squares = np.einsum("ij,ij->i", matrix, matrix)
        # Numbers that are not finite make it neither.
        sound = (np.abs(squares - 1) < 1e-3) | (squares == 0)
        return {key: matrix[row] for row, key in enumerate(whole) if sound[row]}

    def put(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keep one row for each key, over what was there.

        Raises:
            RagwrightError: The rows are longer or shorter than those in the file, or it cannot be written.
        """
        assert len(keys) == len(vectors), "one row for each key"
        if not len(keys):
            return
        self._check_dimensions(vectors.shape[1])
        rows = np.ascontiguousarray(vectors, dtype=_FLOAT)
        with self._explained("written"), self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO vectors (key, vector) VALUES (?, ?)",
                ((key, row.tobytes()) for key, row in zip(keys, rows, strict=True)),
            )

    def __len__(self) -> int:
        with self._explained("read"), self._lock:
            count: int = self._connection.execute("SELECT COUNT(*) FROM vectors").fetchone()[0]
        return count

    def close(self) -> None:
        """Close the file; the cache cannot be used any more."""
        with self._lock:
            self._connection.close()

    def _select(self, keys: Sequence[bytes]) -> list[tuple[bytes, Any]]:
        places = ",".join("?" * len(keys))
        return self._connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({places})", keys).fetchall()

    def _check_dimensions(self, found: int) -> None:
        if self.dimensions is None:
            with self._explained("written"), self._transaction():
                # Another process may have been first.
                self._connection.execute("INSERT OR IGNORE INTO facts VALUES ('dimensions', ?)", (found,))
        if self.dimensions != found:
            raise RagwrightError(
                f"the vector cache {self.path} holds vectors of {self.dimensions} numbers, but the model now gives "
                f"{found}: another model answers under this name; remove the file."
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RagwrightError(
                f"the vector cache {self.path} cannot be {verb}: {error}; remove the file (what it holds is then "
                "computed again), or name a writable folder."
            ) from None


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))
