"""Embedding models on ONNX Runtime, by fastembed: its own by name, or any in a folder."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from programs.embedding_models import Compute, EmbeddingModel, Role, installed_version, one_at_a_time
from programs.embedding_prompts import Prompts, find_prompts
from programs.errors import MissingExtraError, RagwrightError
from programs.model_folder import folder_fingerprint

MODEL_FILES = ("model.onnx", "onnx/model.onnx")
# fastembed gives this one's task for questions another adapter than its task for passages.
_KNOWS_ROLES = "jinaai/jina-embeddings-v3"
_POOLING = "1_Pooling/config.json"
_UNPOOLED = (
    "gives a vector for each token, and nothing says how to make one of them; write "
    f'{_POOLING}, such as {{"pooling_mode_mean_tokens": true}}.'
)
_UNFETCHED = (
    "is neither on this machine nor could it be fetched: run once with a network (and without HF_HUB_OFFLINE), point "
    "FASTEMBED_CACHE_PATH at the folder in which fastembed keeps it, or name a folder that holds it."
)


def find_fastembed(model: str) -> EmbeddingModel:
    """The model of that name or in that folder.

    Args:
        model: A name from `fastembed.TextEmbedding.list_supported_models()`, or a folder with one of `MODEL_FILES`,
            `tokenizer.json` and `tokenizer_config.json`. What to do with the vectors of tokens stands in its
            `1_Pooling/config.json`; without that file, it must give one vector for each text by itself.

    Raises:
        MissingExtraError: fastembed is not installed.
        RagwrightError: There is no such model.
    """
    try:
        from fastembed import TextEmbedding
    except ModuleNotFoundError as error:
        if error.name != "fastembed":
            raise
        raise MissingExtraError(f"embedder 'fastembed:{model}'", "fastembed") from None
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _in_folder(model, folder)
    known = {entry["model"].lower(): entry for entry in TextEmbedding.list_supported_models()}
    entry = known.get(model.lower())
    if entry is None:
        raise RagwrightError(
            f"embedder: 'fastembed:{model}' is neither a folder nor a model that fastembed "
            f"{installed_version('fastembed')} knows, such as BAAI/bge-small-en-v1.5; its list: "
            "fastembed.TextEmbedding.list_supported_models()."
        )
    prompts = find_prompts(model)
    return EmbeddingModel(
        identity=f"fastembed {installed_version('fastembed')} {entry['model']} {prompts}".strip(),
        load=lambda: _loaded(entry["model"], None, ""),
        prompts=prompts,
        knows_roles=entry["model"] == _KNOWS_ROLES,
        dimensions=entry["dim"],
    )


def _in_folder(model: str, folder: Path) -> EmbeddingModel:
    missing = [name for name in ("tokenizer.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in MODEL_FILES):
        missing.insert(0, MODEL_FILES[0])
    if missing:
        raise RagwrightError(
            f"embedder: 'fastembed:{model}' has no {', '.join(missing)}; it must be an ONNX export with its tokenizer."
        )
    prompts = _own_prompts(folder) or find_prompts(str(folder.resolve()))
    fingerprint = folder_fingerprint(folder)
    return EmbeddingModel(
        identity=f"fastembed {installed_version('fastembed')} folder {fingerprint} {prompts}".strip(),
        load=lambda: _loaded(model, folder.resolve(), fingerprint),
        prompts=prompts,
    )


def _own_prompts(folder: Path) -> Prompts | None:
    """The prompts that a folder in the manner of sentence-transformers brings along."""
    prompts = _settings(folder / "config_sentence_transformers.json").get("prompts")
    if not isinstance(prompts, dict) or not any(prompts.values()):
        return None
    passage = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")
    return Prompts(str(prompts.get("query") or ""), str(passage))


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RagwrightError(f"{path}: this is not JSON; write the model's folder anew.") from None
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=4)
def _loaded(model: str, folder: Path | None, fingerprint: str) -> Compute:
    """Load the model; `fingerprint` is there to load a folder anew after a change."""
    import numpy as np
    from fastembed import TextEmbedding
    from loguru import logger

    # fastembed reports to the terminal what the error below says in one line.
    logger.disable("fastembed")
    name = model if folder is None else _registered(folder, fingerprint)
    settings: dict[str, Any] = {} if folder is None else {"specific_model_path": str(folder)}
    try:
        loaded = TextEmbedding(name, **settings)
    except Exception as error:  # noqa: BLE001  # the tokenizers library and ONNX Runtime raise nothing more special
        missing = folder is None and isinstance(error, ValueError)
        why = _UNFETCHED if missing else f"cannot be loaded: {_first_line(error)}"
        raise RagwrightError(f"embedder 'fastembed:{model}' {why}") from None

    def compute(texts: list[str], role: Role) -> Any:
        embed = loaded.query_embed if role == "question" else loaded.passage_embed
        try:
            return np.stack(list(embed(texts)))
        except Exception as error:  # noqa: BLE001  # as above
            unsaid = isinstance(error, ValueError) and folder is not None and not _settings(folder / _POOLING)
            why = _UNPOOLED if unsaid else f"failed: {_first_line(error)}"
            raise RagwrightError(f"embedder 'fastembed:{model}' {why}") from None

    return one_at_a_time(compute)


def _registered(folder: Path, fingerprint: str) -> str:
    """Tell fastembed of a folder's model, once, and return the name that it has there."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource

    name = f"{folder} {fingerprint}"
    if name.lower() not in (entry["model"].lower() for entry in TextEmbedding.list_supported_models()):
        TextEmbedding.add_custom_model(
            name,
            pooling=_pooling(folder),
            normalization=False,
            # Nothing is fetched from there: the folder is given when the model is loaded.
            sources=ModelSource(hf=name),
            dim=0,
            model_file=next(file for file in MODEL_FILES if (folder / file).is_file()),
        )
    return name


def _pooling(folder: Path) -> Any:
    """What the folder says about the vectors of tokens, as sentence-transformers writes it in either of its manners."""
    from fastembed.common.model_description import PoolingType

    kinds = {"cls": PoolingType.CLS, "mean": PoolingType.MEAN, "lasttoken": PoolingType.LAST_TOKEN}
    path = folder / _POOLING
    settings = _settings(path)
    if not settings:
        return PoolingType.DISABLED
    prefix = "pooling_mode_"
    flags = [name.removeprefix(prefix) for name, on in settings.items() if name.startswith(prefix) and on is True]
    modes = [flag.removesuffix("s").removesuffix("_token") for flag in flags] or [str(settings.get("pooling_mode"))]
    if len(modes) != 1 or modes[0] not in kinds:
        raise RagwrightError(f"{path}: pooling {modes} is not supported; choose one of {', '.join(kinds)}.")
    return kinds[modes[0]]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
