"""Text into vectors: the embedded static model, or any embedding API that LiteLLM knows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from programs.errors import EndpointError, RagwrightError

Vectors = NDArray[np.float32]
Compute = Callable[[list[str]], Any]

_OPENING = threading.Lock()
_QUESTIONS_KEPT = 10_000
_API_BATCH = 128
_REFUSALS = ("AuthenticationError", "PermissionDeniedError", "NotFoundError", "APIConnectionError")


class Embedder:
    """Turns texts into unit vectors and counts its work. Safe to use from many threads.

    Args:
        name: The name that configurations give it.
        compute: Maps texts, none of them blank, to one row each, of any length above 0.
    """

    def __init__(self, name: str, compute: Compute) -> None:
        self.name = name
        self._compute = compute
        self._texts_embedded = 0
        self._dimensions = 0
        self._lock = threading.Lock()
        self._question = lru_cache(maxsize=_QUESTIONS_KEPT)(self._embed_one)

    @property
    def texts_embedded(self) -> int:
        """Number of texts that were really computed, in this process."""
        return self._texts_embedded

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, of length 1; a blank text gets a row of zeros.

        Raises:
            RagwrightError: The model cannot be reached or returns something other than finite rows.
        """
        filled = [position for position, text in enumerate(texts) if text.strip()]
        if not filled:
            dimensions = self._dimensions or self._unit_rows(["dimensions"]).shape[1]
            return np.zeros((len(texts), dimensions), dtype=np.float32)
        rows = self._unit_rows([texts[position] for position in filled])
        vectors = np.zeros((len(texts), rows.shape[1]), dtype=np.float32)
        vectors[filled] = rows
        return vectors

    def embed_question(self, question: str) -> Vectors:
        """One vector of length 1 (zeros for a blank question), from memory where the question was asked before."""
        return self._question(question)

    def _embed_one(self, question: str) -> Vectors:
        vector: Vectors = self.embed([question])[0]
        # It is handed to several callers.
        vector.setflags(write=False)
        return vector

    def _unit_rows(self, texts: list[str]) -> Vectors:
        rows = np.asarray(self._compute(texts), dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
            raise RagwrightError(
                f"embedder {self.name!r} returned {rows.shape} for {len(texts)} texts; needed are as many finite rows."
            )
        with self._lock:
            self._texts_embedded += len(texts)
            self._dimensions = rows.shape[1]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: Vectors = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
        return unit


def open_embedder(name: str) -> Embedder:
    """The embedder of that name, one for each name and process.

    Args:
        name: A name in `EMBEDDERS`, or `provider/model` for an API, such as `openai/text-embedding-3-small`. The
            provider's usual variables apply: `OPENAI_API_KEY`, `OPENAI_API_BASE` and the like.

    Raises:
        RagwrightError: There is no such embedder.
    """
    with _OPENING:
        return _opened(name)


@lru_cache(maxsize=32)
def _opened(name: str) -> Embedder:
    if name in EMBEDDERS:
        return Embedder(name, EMBEDDERS[name]())
    _check_api_name(name)
    return Embedder(name, _open_api(name))


def embedder_identity(name: str) -> str:
    """What tells vectors of one embedder from those of another: the name with the model's version or its endpoint.

    Raises:
        RagwrightError: There is no such embedder.
    """
    if name == "wordllama":
        return f"wordllama {importlib.metadata.version('wordllama')} l2_supercat 256"
    if name not in EMBEDDERS:
        _check_api_name(name)
    return f"{name} {_endpoint(name)}".strip()


def _check_api_name(name: str) -> None:
    provider, _, model = name.partition("/")
    if not provider or not model:
        choices = ", ".join(EMBEDDERS)
        raise RagwrightError(
            f"embedder: {name!r} is unknown; choose {choices}, or provider/model such as openai/text-embedding-3-small."
        )


def _open_wordllama() -> Compute:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    from wordllama import WordLlama

    # Importing wordllama sets up logging for the whole process.
    root.handlers[:] = handlers
    root.setLevel(level)
    spec = importlib.util.find_spec("wordllama")
    assert spec is not None and spec.origin is not None
    # Without the folder it looks for its tokenizer elsewhere, and then on the network.
    return WordLlama.load(cache_dir=Path(spec.origin).parent, disable_download=True).embed


EMBEDDERS: dict[str, Callable[[], Compute]] = {"wordllama": _open_wordllama}


def _open_api(name: str) -> Compute:
    # Without it LiteLLM fetches a price list at its import.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import dspy
    import openai

    endpoint = _endpoint(name)
    settings = {"api_base": endpoint} if endpoint else {}
    # DSPy's cache does not tell endpoints apart; questions are kept in memory and chunks in the index.
    api = dspy.Embedder(name, batch_size=_API_BATCH, caching=False, **settings)

    def compute(texts: list[str]) -> Any:
        try:
            return api(texts)
        # LiteLLM raises ValueError for replies that it cannot read; its other errors are OpenAI's.
        except (openai.OpenAIError, ValueError, KeyError, TypeError) as error:
            raise _explained(name, endpoint, error) from error

    return compute


def _endpoint(name: str) -> str:
    """The address that the environment gives for the provider; empty for the provider's own."""
    provider = name.partition("/")[0].upper()
    return os.environ.get(f"{provider}_API_BASE") or os.environ.get(f"{provider}_BASE_URL") or ""


def _explained(name: str, endpoint: str, error: Exception) -> RagwrightError:
    """One line without the provider's own text, which may quote the key."""
    kind = type(error).__name__
    status = getattr(error, "status_code", None)
    where = "its endpoint" if endpoint else "the provider"
    reason = f"{where} answered with {kind}" + (f" (status {status})" if status else "")
    provider = name.partition("/")[0].upper()
    mend = f"check the model's name, {provider}_API_KEY and {provider}_API_BASE"
    refused = kind in _REFUSALS
    return (EndpointError if refused else RagwrightError)(f"embedder {name!r} failed: {reason}; {mend}.")
