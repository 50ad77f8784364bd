"""Scores of models for pairs of question and passage, kept on disk: a pair is scored once."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from programs.errors import RagwrightError

Key = bytes
Scoring = Callable[[list[Key]], Iterable[Mapping[Key, float]]]

FILE = "scores.sqlite"

_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID",
)
# SQLite takes some hundreds of parameters a statement in any build.
_KEYS_AT_ONCE = 500
_OPENING = threading.Lock()
_OPEN: weakref.WeakValueDictionary[Path, ScoreCache] = weakref.WeakValueDictionary()


class ScoreCache:
    """A table from keys to scores, in one SQLite file. Thread-safe; processes may share the file.

    Args:
        path: The file; it and its folder are made when missing. None: in memory, for as long as the cache lives.

    Raises:
        RagwrightError: The file is not such a cache, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._claims: dict[Key, threading.Event] = {}
        with self._explained("opened"):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            where = path or ":memory:"
            self._connection = sqlite3.connect(where, timeout=30, isolation_level=None, check_same_thread=False)
            # Rerankers hold the cache for as long as they live, and nobody is told when that ends.
            weakref.finalize(self, self._connection.close)
            for statement in _SETTINGS:
                self._connection.execute(statement)

    def get(self, keys: Iterable[Key]) -> dict[Key, float]:
        """The scores that are known; anything in the file that is no number counts as unknown.

        Raises:
            RagwrightError: The file is damaged.
        """
        found: dict[Key, float] = {}
        waiting = iter(keys)
        while part := list(islice(waiting, _KEYS_AT_ONCE)):
            places = ",".join("?" * len(part))
            query = f"SELECT key, score FROM scores WHERE key IN ({places}) AND typeof(score) = 'real'"
            with self._explained("read"), self._lock:
                found.update(self._connection.execute(query, part).fetchall())
        return found

    def put(self, scores: Mapping[Key, float]) -> None:
        """Keep finite scores, all or none of them, over what was there.

        Raises:
            RagwrightError: The file cannot be written.
        """
        with self._explained("written"), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO scores (key, score) VALUES (?, ?)", scores.items())
                self._connection.execute("COMMIT")
            except BaseException:
                # Where the disk is full, SQLite has done so already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def complete(self, keys: Collection[Key], score: Scoring) -> dict[Key, float]:
        """The scores of all keys; those that are unknown are scored, each by one of the threads that want it.

        Args:
            keys: What is wanted, each once.
            score: Scores distinct keys, all of them, in as many parts as it likes. Each part is kept at once, so that
                little is lost where a later one fails.

        Raises:
            RagwrightError: The file is damaged or cannot be written.
            Exception: What `score` raises. Threads that wait for the same keys then try for themselves.
        """
        scores = self.get(keys)
        missing = [key for key in keys if key not in scores]
        while missing:
            mine, others = self._claim(missing)
            try:
                # Another thread may have finished between the look and the claim.
                scores |= self.get(mine)
                if unknown := [key for key in mine if key not in scores]:
                    for part in score(unknown):
                        self.put(part)
                        scores |= part
                    assert all(key in scores for key in unknown), "scoring left something out"
            finally:
                self._release(mine)
            for event in others:
                event.wait()
            scores |= self.get(key for key in missing if key not in scores)
            missing = [key for key in missing if key not in scores]
        return scores

    def _claim(self, keys: list[Key]) -> tuple[list[Key], set[threading.Event]]:
        """The keys that nobody is scoring, now claimed, and what to wait for to have the others."""
        done = threading.Event()
        with self._lock:
            others = {self._claims[key] for key in keys if key in self._claims}
            mine = [key for key in keys if key not in self._claims]
            self._claims.update(dict.fromkeys(mine, done))
        return mine, others

    def _release(self, keys: list[Key]) -> None:
        with self._lock:
            events = {self._claims.pop(key) for key in keys}
        for event in events:
            event.set()

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RagwrightError(
                f"the score cache {self.path} cannot be {verb}: {error}; remove the file (what it holds is then scored "
                "again), or name a writable folder."
            ) from None

    def __len__(self) -> int:
        with self._explained("read"), self._lock:
            count: int = self._connection.execute("SELECT COUNT(*) FROM scores").fetchone()[0]
        return count

    def close(self) -> None:
        """Close the file; the cache cannot be used any more."""
        with self._lock:
            self._connection.close()


def open_score_cache(folder: Path | None) -> ScoreCache:
    """The cache of a folder, one for all its users in this process; a new one in memory where there is no folder.

    Raises:
        RagwrightError: The file there is not such a cache, or cannot be written.
    """
    if folder is None:
        return ScoreCache(None)
    path = folder.resolve() / FILE
    with _OPENING:
        opened = _OPEN.get(path)
        # Somebody may have cleaned the folder since.
        if opened is None or not path.is_file():
            opened = _OPEN[path] = ScoreCache(path)
        return opened


def score_key(identity: str, question: str, text: str) -> Key:
    """What a score is kept under: a digest of the model's identity, the question and the passage's text."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (identity, question, text)]
    lengths = ",".join(str(len(part)) for part in parts).encode()
    return hashlib.sha256(b"\0".join([lengths, *parts])).digest()[:16]
