"""The cache of responses under load: readers do not wait for each other, and nobody waits for the disk."""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from programs.response_cache import ResponseCache

_QUERY = "SELECT CAST(value AS BLOB) FROM responses WHERE key = ?"
_WRITE = "INSERT OR REPLACE INTO responses (key, value) VALUES (?, ?)"


class ServedCache(ResponseCache):
    """The same table, read by a connection of each thread and written by a thread of its own, many rows at a time.

    A thread that holds the one lock of `ResponseCache` has to wait for Python's own before it gives it back, and under
    load all others wait with it. What a killed process had not yet written is asked again: some milliseconds' worth.

    Args:
        path: The file.

    Raises:
        RagwrightError: The file is not such a cache, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._own = threading.local()
        self._unwritten: dict[str, Mapping[str, Any]] = {}
        self._queue: SimpleQueue[tuple[str, Mapping[str, Any]] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="responses", daemon=True)
        self._writer.start()

    def get(self, key: str) -> dict[str, Any] | None:
        """The value under `key`, or None; a row that is not a JSON object counts as missing."""
        waiting = self._unwritten.get(key)
        if waiting is not None:
            return dict(waiting)
        row = self._reader().execute(_QUERY, (key,)).fetchone()
        try:
            value = json.loads(row[0]) if row else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep `value` under `key`: at once for readers, soon on disk."""
        self._unwritten[key] = value
        self._queue.put((key, value))

    def close(self) -> None:
        """Write what waits and close the file; the cache cannot be used any more."""
        self._queue.put(None)
        self._writer.join()
        super().close()

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            weakref.finalize(self, connection.close)
            self._own.connection = connection
        return connection

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            rows, ended = [first], False
            while not self._queue.empty() and not ended:
                one = self._queue.get()
                ended = one is None
                if one is not None:
                    rows.append(one)
            self._keep(rows)
            if ended:
                return

    def _keep(self, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
        lines = [(key, json.dumps(value, ensure_ascii=True, separators=(",", ":"))) for key, value in rows]
        try:
            with self._lock:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_WRITE, lines)
                self._connection.execute("COMMIT")
        except sqlite3.Error:
            # A full disk or a lock that stays: answers go on, and are asked for again where they were not kept.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        for key, value in rows:
            if self._unwritten.get(key) is value:
                del self._unwritten[key]
