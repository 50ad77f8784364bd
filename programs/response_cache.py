"""Answers of language models, kept on disk: what was paid for once is never paid for again."""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs.errors import RagwrightError


class ResponseCache:
    """A table from a call's key to a JSON object, in one SQLite file. Thread-safe; processes may share the file.

    Every `put` is a transaction of its own in write-ahead mode: a killed process loses at most the call it was making.

    Args:
        path: The file; it and its folder are made when missing.

    Raises:
        RagwrightError: The file is not such a cache, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._calls = _KeyedLocks()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            # Language models hold the cache for as long as they live, and nobody is told when that ends.
            weakref.finalize(self, self._connection.close)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except (sqlite3.Error, OSError) as error:
            raise RagwrightError(
                f"the response cache {path} cannot be opened: {error}; remove the file, or name a writable folder."
            ) from None

    def get(self, key: str) -> dict[str, Any] | None:
        """The value under `key`, or None: a row that is not a JSON object counts as missing, to be overwritten."""
        query = "SELECT CAST(value AS BLOB) FROM responses WHERE key = ?"
        with self._lock:
            row = self._connection.execute(query, (key,)).fetchone()
        try:
            value = json.loads(row[0]) if row else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep `value`, which must be JSON-serializable, under `key` and over what was there."""
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO responses (key, value) VALUES (?, ?)", (key, text))

    def __len__(self) -> int:
        with self._lock:
            count: int = self._connection.execute("SELECT COUNT(*) FROM responses").fetchone()[0]
        return count

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold `key` against the other threads of this process, so that equal calls at the same time become one."""
        with self._calls.hold(key):
            yield

    def close(self) -> None:
        """Close the file; the cache cannot be used any more."""
        with self._lock:
            self._connection.close()


class _KeyedLocks:
    """One lock per key, as long as somebody holds or awaits it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks.pop(key)
                if users > 1:
                    self._locks[key] = (lock, users - 1)
