"""Unit vectors of texts under one model: from the cache where they are, computed once where they are not."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np

from programs.embedding_models import Compute, EmbeddingModel, Role
from programs.errors import RagwrightError
from programs.vector_cache import VectorCache, Vectors

Count = Callable[[int], None]


class VectorSource:
    """What embedders of one model share, whatever size they cut its vectors to. Safe to use from many threads.

    Args:
        name: The name that configurations give the model, for messages.
        model: Loaded when the first text has to be computed.
        cache: Keeps what is computed; None keeps nothing.
    """

    def __init__(self, name: str, model: EmbeddingModel, cache: VectorCache | None) -> None:
        self._name, self._model, self._cache = name, model, cache
        self._compute: Compute | None = None
        self._loading, self._claiming = threading.Lock(), threading.Lock()
        self._claims: dict[bytes, _Claim] = {}
        self._dimensions = model.dimensions or (cache.dimensions if cache else None)
        self._answered = False

    def dimensions(self, count: Count) -> int:
        """Length of the vectors; where nothing else tells, a word is embedded to find out.

        Raises:
            RagwrightError: The model cannot be loaded or reached.
        """
        if self._dimensions is None:
            self.rows(["dimensions"], "passage", count)
        assert self._dimensions is not None
        return self._dimensions

    def rows(self, texts: Sequence[str], role: Role, count: Count) -> Vectors:
        """One row of length 1 (or of zeros) for each text.

        A text is computed once, however often it stands in `texts`, and whoever else asks for it at the same time.

        Args:
            texts: At least one; none of them blank.
            role: What the texts are.
            count: Told the number of texts that were computed, each time that some were.

        Raises:
            RagwrightError: The model cannot be loaded or reached, or returns something other than finite rows. What was
                computed before that is kept.
        """
        prefix = getattr(self._model.prompts, role)
        sent = [prefix + text for text in texts]
        keys = [self._key(text, role) for text in sent]
        wanted = dict(zip(keys, sent, strict=True))
        found: dict[bytes, Vectors] = {}
        while len(found) < len(wanted):
            mine, others = self._claim(key for key in wanted if key not in found)
            try:
                self._fill(mine, wanted, role, count)
            finally:
                self._release(mine)
            found |= mine.vectors
            for key, claim in others.items():
                found |= claim.vector_of(key)
        return np.stack([found[key] for key in keys])

    def _key(self, text: str, role: Role) -> bytes:
        tag = f"{role}\0" if self._model.knows_roles else ""
        return hashlib.sha256((tag + text).encode("utf-8", "surrogatepass")).digest()

    def _claim(self, keys: Iterable[bytes]) -> tuple[_Claim, dict[bytes, _Claim]]:
        """Take on the keys that nobody is at work on; the others with those who are."""
        mine, others = _Claim(), {}
        with self._claiming:
            for key in keys:
                claim = self._claims.setdefault(key, mine)
                if claim is mine:
                    mine.keys.append(key)
                else:
                    others[key] = claim
        return mine, others

    def _release(self, claim: _Claim) -> None:
        with self._claiming:
            for key in claim.keys:
                del self._claims[key]
        claim.done.set()

    def _fill(self, claim: _Claim, sent: dict[bytes, str], role: Role, count: Count) -> None:
        """Find or compute the vectors of all claimed keys."""
        try:
            if self._cache is not None:
                claim.vectors |= self._cache.get(claim.keys)

            def work(batch: list[bytes]) -> None:
                rows = self._unit_rows([sent[key] for key in batch], role)
                count(len(batch))
                if self._cache is not None:
                    self._cache.put(batch, rows)
                claim.vectors.update(zip(batch, rows, strict=True))

            batches = self._batches([key for key in claim.keys if key not in claim.vectors], sent)
            if batches and not self._answered:
                # A wrong key or name costs one request, not several.
                work(batches.pop(0))
            _in_parallel(work, batches, self._model.in_flight)
        except Exception as error:
            claim.error = error
            raise

    def _batches(self, keys: list[bytes], sent: dict[bytes, str]) -> list[list[bytes]]:
        size = self._model.batch
        if self._model.in_flight == 1:
            # On this machine, every text of a batch is padded to the longest.
            keys = sorted(keys, key=lambda key: len(sent[key]))
        return [keys[start : start + size] for start in range(0, len(keys), size)]

    def _unit_rows(self, texts: list[str], role: Role) -> Vectors:
        returned = self._loaded()(texts, role)
        try:
            rows = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError):
            raise RagwrightError(f"embedder {self._name!r} returned something other than rows of numbers.") from None
        if rows.ndim != 2 or len(rows) != len(texts) or not rows.shape[1] or not np.isfinite(rows).all():
            raise RagwrightError(
                f"embedder {self._name!r} returned {rows.shape} for {len(texts)} texts; needed are as many finite rows."
            )
        if self._dimensions not in (None, rows.shape[1]):
            raise RagwrightError(
                f"embedder {self._name!r} returned vectors of {rows.shape[1]} numbers, and {self._dimensions} before; "
                "where another model answers under this name now, remove its file in the cache."
            )
        self._dimensions = rows.shape[1]
        self._answered = True
        return unit_rows(rows)

    def _loaded(self) -> Compute:
        with self._loading:
            if self._compute is None:
                self._compute = self._model.load()
            return self._compute


def unit_rows(rows: Vectors) -> Vectors:
    """The rows at length 1; rows of zeros stay."""
    # In float64 the squares of large numbers stay finite.
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit: Vectors = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0, casting="same_kind")
    return unit


class _Claim:
    """Keys that one call is at work on.

    Attributes:
        keys: Which.
        vectors: What it has so far.
        error: Why it gave up.
        done: Set when it has ended, well or not.
    """

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.vectors: dict[bytes, Vectors] = {}
        self.error: Exception | None = None
        self.done = threading.Event()

    def vector_of(self, key: bytes) -> dict[bytes, Vectors]:
        """Wait for the vector; nothing where that call was interrupted, and its error where it failed."""
        self.done.wait()
        if key in self.vectors:
            return {key: self.vectors[key]}
        if self.error is not None:
            raise self.error
        return {}


def _in_parallel(work: Callable[[list[bytes]], None], batches: list[list[bytes]], in_flight: int) -> None:
    """Work on all batches, a few at a time; after an error no more are begun, and those begun are finished."""
    if in_flight == 1 or len(batches) < 2:
        for batch in batches:
            work(batch)
        return
    with ThreadPoolExecutor(min(in_flight, len(batches)), thread_name_prefix="embedding") as pool:
        futures = [pool.submit(work, batch) for batch in batches]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()
