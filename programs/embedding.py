"""Text into vectors: the embedded static model, models on this machine, or any embedding API that LiteLLM knows."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from programs.embedding_models import EMBEDDERS as EMBEDDERS
from programs.embedding_models import Role, find_model
from programs.embedding_source import VectorSource, unit_rows
from programs.errors import RagwrightError
from programs.vector_cache import VectorCache
from programs.vector_cache import Vectors as Vectors

_OPENING = threading.Lock()
_QUESTIONS_KEPT = 10_000
# A leading zero belongs to the name: Google calls versions of its models @001.
_SIZE = re.compile(r"@([1-9][0-9]*)$")


class Embedder:
    """Turns texts into unit vectors and counts its work. Safe to use from many threads; get one from `open_embedder`.

    Args:
        name: The name that configurations give it.
        identity: What tells its vectors from those of another; see `embedder_identity`.
        source: The vectors of the whole model.
        size: The number of first components to keep of each vector; None keeps all.
    """

    def __init__(self, name: str, identity: str, source: VectorSource, size: int | None = None) -> None:
        self.name = name
        self.identity = identity
        self._source = source
        self._size = size
        self._texts_embedded = 0
        self._questions: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def texts_embedded(self) -> int:
        """Number of texts that were really computed at its request, in this process."""
        return self._texts_embedded

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each passage, of length 1; a blank text gets a row of zeros.

        Raises:
            RagwrightError: The model cannot be loaded or reached, returns something other than finite rows, or has
                fewer components than the name asks for.
        """
        return self._rows(texts, "passage")

    def embed_questions(self, questions: Sequence[str]) -> Vectors:
        """One row for each question, of length 1; zeros for a blank one. What was asked lately comes from memory.

        Raises:
            RagwrightError: As `embed`.
        """
        found = self._remembered(questions)
        new = list(dict.fromkeys(question for question in questions if question not in found))
        if new or not questions:
            rows = self._rows(new, "question")
            if not questions:
                return rows
            found |= zip(new, rows, strict=True)
            self._remember(new, rows)
        return np.stack([found[question] for question in questions])

    def _remembered(self, questions: Sequence[str]) -> dict[str, Vectors]:
        with self._lock:
            known = {question: self._questions[question] for question in questions if question in self._questions}
            for question in known:
                self._questions.move_to_end(question)
        return known

    def _remember(self, questions: Sequence[str], vectors: Vectors) -> None:
        with self._lock:
            # A row itself would keep its whole matrix alive.
            self._questions.update((question, row.copy()) for question, row in zip(questions, vectors, strict=True))
            while len(self._questions) > _QUESTIONS_KEPT:
                self._questions.popitem(last=False)

    def _rows(self, texts: Sequence[str], role: Role) -> Vectors:
        filled = [position for position, text in enumerate(texts) if text.strip()]
        if not filled:
            return np.zeros((len(texts), self._length(self._source.dimensions(self._count))), dtype=np.float32)
        rows = self._source.rows([texts[position] for position in filled], role, self._count)
        length = self._length(rows.shape[1])
        vectors = np.zeros((len(texts), length), dtype=np.float32)
        vectors[filled] = rows if length == rows.shape[1] else unit_rows(rows[:, :length])
        return vectors

    def _count(self, computed: int) -> None:
        with self._lock:
            self._texts_embedded += computed

    def _length(self, dimensions: int) -> int:
        check_size(self.name, self._size, dimensions)
        return self._size or dimensions


def open_embedder(name: str, cache: Path | None = None) -> Embedder:
    """The embedder of that name, one for each name and cache in this process. The model is loaded when it is needed.

    Args:
        name: A name in `EMBEDDERS`; `fastembed:MODEL` or `sentence-transformers:MODEL`, where the model is a name that
            the library knows or a folder; or `provider/model` for an API, such as `openai/text-embedding-3-small`, to
            which the provider's usual variables apply: `OPENAI_API_KEY`, `OPENAI_API_BASE` and the like. With `@N` at
            the end, the first N components of each vector, at length 1 again: good where the model was trained for it
            (Matryoshka), as wordllama was for 64, 128 and 256. It shares what is computed and kept with the whole.
        cache: The folder in which vectors are kept, under `vectors/`, a file for each model; None keeps none.

    Raises:
        MissingExtraError: The model's library is not installed.
        RagwrightError: There is no such embedder, or the cache cannot be opened.
    """
    whole, size = _split(name)
    identity = embedder_identity(name)
    with _OPENING:
        return _opened(name, whole, size, identity, cache.resolve() if cache else None)


def embedder_identity(name: str) -> str:
    """What tells vectors of one embedder from those of another: the model with its version, weights, endpoint, size.

    Raises:
        MissingExtraError: The model's library is not installed.
        RagwrightError: There is no such embedder.
    """
    whole, size = _split(name)
    model = find_model(whole)
    if model.dimensions is not None:
        check_size(name, size, model.dimensions)
    return model.identity + (f" @{size}" if size else "")


def check_size(name: str, size: int | None, dimensions: int) -> None:
    """Refuse to keep more components than there are.

    Raises:
        RagwrightError: `size` is above `dimensions`.
    """
    if size is not None and size > dimensions:
        raise RagwrightError(
            f"embedder: {name!r} asks for the first {size} components, but the model has {dimensions}; "
            f"write @{dimensions} or less."
        )


def _split(name: str) -> tuple[str, int | None]:
    match = _SIZE.search(name)
    return (name[: match.start()], int(match[1])) if match else (name, None)


@lru_cache(maxsize=32)
def _opened(name: str, whole: str, size: int | None, identity: str, cache: Path | None) -> Embedder:
    model = find_model(whole)
    return Embedder(name, identity, _source(whole, model.identity, cache), size)


@lru_cache(maxsize=32)
def _source(whole: str, identity: str, cache: Path | None) -> VectorSource:
    return VectorSource(whole, find_model(whole), VectorCache(_file(cache, identity)) if cache else None)


def _file(cache: Path, identity: str) -> Path:
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", identity).strip("-.")[:60]
    return cache / "vectors" / f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.sqlite"
