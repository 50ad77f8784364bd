"""Reranking by models that score pairs of question and passage: what they share, and those that read both at once."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from programs.errors import MissingExtraError, RagwrightError
from programs.model_folder import folder_fingerprint
from programs.ranking import Ranking, Scores, check_k
from programs.score_cache import Key, open_score_cache, score_key

if TYPE_CHECKING:
    from programs.index import Index

Pair = tuple[str, str]
"""A question and a passage's text."""

CROSS_ENCODER_FILES = ("model.onnx", "onnx/model.onnx")
"""Where a folder may hold the weights of a cross-encoder."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
"""What fastembed wants beside a model's weights."""

_LOADING = threading.Lock()
_PAIRS_AT_ONCE = 64


class PairScorer(Protocol):
    """A model that says how well passages answer questions. Calls come from many threads."""

    def score(self, pairs: Sequence[Pair]) -> Iterator[Mapping[Pair, float]]:
        """Score distinct pairs, all of them, in parts of any size; higher is better.

        Raises:
            RagwrightError: The model fails.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScoringModel:
    """A model that is not loaded yet.

    Attributes:
        name: The name that configurations give it.
        identity: What tells its scores from those of any other model or version.
        load: Makes it ready; slow, and called when the first pair has to be scored.
    """

    name: str
    identity: str
    load: Callable[[], PairScorer]


class PairReranker:
    """Orders passages by a model's scores. A pair that was scored once, by whatever process, is not scored again.

    Args:
        index: Holds the chunks; its cache folder keeps the scores.
        model: Gives the scores.
    """

    def __init__(self, index: Index, model: ScoringModel) -> None:
        self.index, self.model = index, model
        self._cache = open_score_cache(index.cache)
        self._lock = threading.Lock()
        self._pairs_scored = 0

    @property
    def pairs_scored(self) -> int:
        """Number of pairs that the model really scored, for this reranker."""
        return self._pairs_scored

    def rerank(self, questions: Sequence[str], rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The `k` best of each ranking by the model's scores; to a blank question every passage is worth 0.

        Raises:
            RagwrightError: `k` is below 1, or the model cannot be loaded or fails.
        """
        check_k(k)
        pairs = [self._pairs(question, ranking) for question, ranking in zip(questions, rankings, strict=True)]
        keys = [[score_key(self.model.identity, *pair) for pair in own] for own in pairs]
        wanted = {key: pair for own, its in zip(keys, pairs, strict=True) for key, pair in zip(own, its, strict=True)}
        scores = self._cache.complete(wanted, lambda missing: self._score({wanted[key]: key for key in missing}))
        return [
            Ranking.best(ranking.positions, _array([scores[key] for key in own] or [0.0] * len(ranking)), k)
            for ranking, own in zip(rankings, keys, strict=True)
        ]

    def _pairs(self, question: str, ranking: Ranking) -> list[Pair]:
        if not question.strip():
            return []
        return [(question, self.index.texts[position]) for position in ranking.positions.tolist()]

    def _score(self, keys: Mapping[Pair, Key]) -> Iterator[dict[Key, float]]:
        # Other indexes share the model.
        with _LOADING:
            scorer = self.model.load()
        for part in scorer.score(list(keys)):
            if not np.isfinite(list(part.values())).all():
                raise RagwrightError(f"reranker {self.model.name!r} gave a score that is no finite number.")
            with self._lock:
                self._pairs_scored += len(part)
            yield {keys[pair]: float(score) for pair, score in part.items()}


class CrossEncoder:
    """A model on this machine that reads a question and a passage as one text.

    Nogueira and Cho, "Passage Re-ranking with BERT" (arXiv:1901.04085).

    Args:
        name: The name that configurations give it, for messages.
        predict: Pairs -> one score for each.
    """

    def __init__(self, name: str, predict: Callable[[list[Pair]], Sequence[float]]) -> None:
        self._name, self._predict = name, predict
        self._lock = threading.Lock()

    def score(self, pairs: Sequence[Pair]) -> Iterator[Mapping[Pair, float]]:
        """Score in batches of pairs of about the same length, as all are padded to the longest.

        Raises:
            RagwrightError: The model fails.
        """
        ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
        for start in range(0, len(ordered), _PAIRS_AT_ONCE):
            part = ordered[start : start + _PAIRS_AT_ONCE]
            # One batch keeps all cores at work; two at once would only take them from each other.
            with self._lock, running(self._name):
                scores = self._predict(part)
            yield dict(zip(part, scores, strict=True))


def find_fastembed(model: str) -> ScoringModel:
    """A cross-encoder on ONNX Runtime, by fastembed.

    Args:
        model: A name from `TextCrossEncoder.list_supported_models()`, or a folder with one of `CROSS_ENCODER_FILES` and
            the tokenizer.

    Raises:
        MissingExtraError: fastembed is not installed.
        RagwrightError: There is no such model.
    """
    name = f"fastembed:{model}"
    folder = find_folder(name, model, CROSS_ENCODER_FILES, TOKENIZER_FILES)
    check_installed(name, "fastembed")
    if folder is None:
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        model = find_published(name, model, TextCrossEncoder.list_supported_models())
    which = f"folder {folder_fingerprint(folder)}" if folder else model
    identity = f"fastembed cross-encoder {version('fastembed')} {which}"
    return ScoringModel(name, identity, lambda: _fastembed(name, folder, which))


def find_sentence_transformers(model: str) -> ScoringModel:
    """A cross-encoder on PyTorch, by sentence-transformers.

    Args:
        model: A name at the Hugging Face hub, or a folder.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """
    name = f"sentence-transformers:{model}"
    check_installed(name, "sentence-transformers")
    folder = find_folder(name, model, ("config.json",))
    which = f"folder {folder_fingerprint(folder)}" if folder else model
    identity = f"sentence-transformers cross-encoder {version('sentence-transformers')} {which}"
    return ScoringModel(name, identity, lambda: _sentence_transformers(name, str(folder or model), which))


def find_folder(name: str, model: str, weights: Sequence[str], others: Sequence[str] = ()) -> Path | None:
    """The folder that a model's name means; None for any other name.

    Args:
        name: The reranker's name, for messages.
        model: The model's part of it.
        weights: Files of which the folder must have one.
        others: Files that it must have all.

    Raises:
        RagwrightError: The folder lacks a file.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return None
    missing = [file for file in others if not (folder / file).is_file()]
    if not any((folder / file).is_file() for file in weights):
        missing.insert(0, " or ".join(weights))
    if missing:
        raise RagwrightError(f"reranker: the folder of {name!r} lacks {', '.join(missing)}.")
    return folder.resolve()


def find_published(name: str, model: str, supported: Sequence[Mapping[str, Any]]) -> str:
    """The model as fastembed spells it.

    Raises:
        RagwrightError: It is not among the supported ones.
    """
    known = {str(entry["model"]).lower(): str(entry["model"]) for entry in supported}
    if model.lower() not in known:
        raise RagwrightError(
            f"reranker: {name!r} names no folder and no model that fastembed {version('fastembed')} knows; "
            f"choose a folder or one of {', '.join(known.values())}."
        )
    return known[model.lower()]


def check_installed(name: str, package: str) -> None:
    """Refuse a reranker whose package is missing, without importing the package.

    Raises:
        MissingExtraError: It is not installed; the extra has the package's name.
    """
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        raise MissingExtraError(f"reranker {name!r}", package)


@contextmanager
def loading_fastembed(name: str, folder: Path | None) -> Iterator[None]:
    """Say in one line what goes wrong while fastembed loads a model.

    Raises:
        RagwrightError: Something did.
    """
    from loguru import logger

    # fastembed reports to the terminal what the error says.
    logger.disable("fastembed")
    try:
        yield
    # The tokenizers library and ONNX Runtime raise nothing more special.
    except Exception as error:
        if folder is not None:
            raise RagwrightError(f"reranker {name!r} cannot be loaded: {_first_line(error)}") from error
        raise RagwrightError(
            f"reranker {name!r} is neither on this machine nor could it be fetched: run once with a network (and "
            "without HF_HUB_OFFLINE), point FASTEMBED_CACHE_PATH at the folder in which fastembed keeps it, or name a "
            "folder that holds it."
        ) from error


@contextmanager
def running(name: str) -> Iterator[None]:
    """Say in one line what goes wrong while a model is at work, such as that it is a model for something else.

    Raises:
        RagwrightError: Something did.
    """
    try:
        yield
    # ONNX Runtime and PyTorch each raise kinds of their own.
    except Exception as error:
        raise RagwrightError(
            f"reranker {name!r} failed: {_first_line(error)}; check that it is a model of this kind."
        ) from error


@lru_cache(maxsize=2)
def _fastembed(name: str, folder: Path | None, which: str) -> CrossEncoder:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    with loading_fastembed(name, folder):
        if folder is None:
            model = TextCrossEncoder(which)
        else:
            # The contents are in the name, as fastembed knows a name for as long as the process lives.
            own = f"{folder} {which}"
            if own not in [entry["model"] for entry in TextCrossEncoder.list_supported_models()]:
                weights = next(file for file in CROSS_ENCODER_FILES if (folder / file).is_file())
                # Nothing is fetched from the source: the folder is given below.
                TextCrossEncoder.add_custom_model(own, ModelSource(hf=own), model_file=weights)
            model = TextCrossEncoder(own, specific_model_path=str(folder))
    return CrossEncoder(name, lambda pairs: list(model.rerank_pairs(pairs, batch_size=len(pairs))))


@lru_cache(maxsize=2)
def _sentence_transformers(name: str, where: str, which: str) -> CrossEncoder:
    """Load the model; `which` is there to load a folder anew after a change."""
    import sentence_transformers

    try:
        model = sentence_transformers.CrossEncoder(where)
    # The hub, PyTorch and the tokenizers each raise kinds of their own.
    except Exception as error:
        raise RagwrightError(
            f"reranker {name!r} cannot be loaded: {_first_line(error)}; check the name; where the hub cannot be "
            "reached, run once with a network (and without HF_HUB_OFFLINE) or name a folder that holds it."
        ) from error
    if model.num_labels != 1:
        raise RagwrightError(f"reranker {name!r} gives {model.num_labels} numbers for a pair; choose one that gives 1.")

    def predict(pairs: list[Pair]) -> list[float]:
        scores: list[float] = model.predict(pairs, batch_size=len(pairs), show_progress_bar=False).tolist()
        return scores

    return CrossEncoder(name, predict)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}".rstrip(" .:")


def _array(scores: list[float]) -> Scores:
    return np.array(scores, dtype=np.float32)
