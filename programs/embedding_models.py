"""The models that turn texts into vectors, by name: what each is, and how it is loaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from programs.embedding_prompts import NO_PROMPTS, Prompts
from programs.errors import RagwrightError

Role = Literal["question", "passage"]
Compute = Callable[[list[str], Role], Any]
"""Texts, none of them blank, with their prompts -> one row each, of any length above 0. Called from many threads."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model that is not loaded yet.

    Attributes:
        identity: What tells its vectors from those of any other model or version.
        load: Makes it ready; slow, and called when the first text has to be computed.
        prompts: What is put before texts.
        knows_roles: Whether it computes the same text differently as a question and as a passage.
        dimensions: Length of its vectors, None where only a vector can tell.
        batch: Number of texts computed, and kept, at once.
        in_flight: Number of batches computed at the same time.
    """

    identity: str
    load: Callable[[], Compute]
    prompts: Prompts = NO_PROMPTS
    knows_roles: bool = False
    dimensions: int | None = None
    batch: int = 64
    in_flight: int = 1


WORDLLAMA_SIZES = (64, 128, 256)
"""The numbers of first components that the model was trained to be cut to: `wordllama@64` and so on."""


def _open_wordllama() -> Callable[[list[str]], Any]:
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


EMBEDDERS: dict[str, Callable[[], Callable[[list[str]], Any]]] = {"wordllama": _open_wordllama}
"""Name -> what opens a function from texts to rows, the same for questions and passages."""


def _fastembed(model: str) -> EmbeddingModel:
    from programs.embedding_fastembed import find_fastembed

    return find_fastembed(model)


def _sentence_transformers(model: str) -> EmbeddingModel:
    from programs.embedding_sentence_transformers import find_sentence_transformer

    return find_sentence_transformer(model)


LIBRARIES: dict[str, Callable[[str], EmbeddingModel]] = {
    "fastembed": _fastembed,
    "sentence-transformers": _sentence_transformers,
}
"""Library -> what finds its model: `library:model`, where the model is a name or a folder."""


def find_model(name: str) -> EmbeddingModel:
    """The model that a configuration names, without the size at the end.

    Raises:
        MissingExtraError: Its library is not installed.
        RagwrightError: There is no such model.
    """
    if name in EMBEDDERS:
        return _embedded_model(name)
    library, _, model = name.partition(":")
    if library in LIBRARIES and model:
        return LIBRARIES[library](model)
    provider, _, model = name.partition("/")
    if library in LIBRARIES or not provider or not model:
        choices = ", ".join([*EMBEDDERS, *(f"{library}:MODEL" for library in LIBRARIES)])
        raise RagwrightError(
            f"embedder: {name!r} is unknown; choose {choices}, or provider/model such as openai/text-embedding-3-small."
        )
    from programs.embedding_api import find_api_model

    return find_api_model(name)


@lru_cache(maxsize=8)
def installed_version(package: str) -> str:
    """The version of an installed package, looked up once.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed.
    """
    return importlib.metadata.version(package)


def one_at_a_time(compute: Compute) -> Compute:
    """The same, for models on this machine: two at once would only take the cores from each other."""
    lock = threading.Lock()

    def computed(texts: list[str], role: Role) -> Any:
        with lock:
            return compute(texts, role)

    return computed


def _embedded_model(name: str) -> EmbeddingModel:
    def load() -> Compute:
        compute = _loaded(EMBEDDERS[name])
        return lambda texts, role: compute(texts)

    if name != "wordllama":
        return EmbeddingModel(name, load, batch=1024)
    identity = f"wordllama {installed_version('wordllama')} l2_supercat {WORDLLAMA_SIZES[-1]}"
    return EmbeddingModel(identity, load, dimensions=WORDLLAMA_SIZES[-1], batch=1024)


@lru_cache(maxsize=4)
def _loaded(opener: Callable[[], Callable[[list[str]], Any]]) -> Callable[[list[str]], Any]:
    return opener()
