"""Embedding models on PyTorch, by sentence-transformers: from the hub by name, or in a folder."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from programs.embedding_models import Compute, EmbeddingModel, Role, installed_version, one_at_a_time
from programs.embedding_prompts import Prompts, find_prompts
from programs.errors import MissingExtraError, RagwrightError
from programs.model_folder import folder_fingerprint

_UNFETCHED = (
    "check the name; where the hub cannot be reached, run once with a network (and without HF_HUB_OFFLINE), or name a "
    "folder that holds it"
)


def find_sentence_transformer(model: str) -> EmbeddingModel:
    """The model of that hub id or in that folder; the library puts the model's own prompts before texts.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """
    try:
        installed = installed_version("sentence-transformers")
    except PackageNotFoundError:
        raise MissingExtraError(f"embedder 'sentence-transformers:{model}'", "sentence-transformers") from None
    folder = Path(model).expanduser()
    where = str(folder.resolve()) if folder.is_dir() else model
    which = f"folder {folder_fingerprint(folder)}" if folder.is_dir() else model
    prompts = find_prompts(where)
    return EmbeddingModel(
        identity=f"sentence-transformers {installed} {which} {prompts}".strip(),
        load=lambda: _loaded(model, where, which, prompts),
        knows_roles=True,
        # The library makes batches of its own; these are what is kept at once.
        batch=256,
    )


@lru_cache(maxsize=4)
def _loaded(model: str, where: str, which: str, prompts: Prompts) -> Compute:
    """Load the model; `which` is there to load a folder anew after a change."""
    from sentence_transformers import SentenceTransformer

    try:
        loaded = SentenceTransformer(where)
    except Exception as error:  # noqa: BLE001  # the hub, PyTorch and the tokenizers each raise kinds of their own
        why = "the folder holds no model that this library reads" if which != model else _UNFETCHED
        raise RagwrightError(
            f"embedder 'sentence-transformers:{model}' cannot be loaded ({type(error).__name__}): {why}."
        ) from None
    # Some models came out before prompts could be saved with them: e5, bge.
    own = any(loaded.prompts.values())

    def compute(texts: list[str], role: Role) -> Any:
        encode = loaded.encode_query if role == "question" else loaded.encode_document
        prefix = "" if own else getattr(prompts, role)
        return encode([prefix + text for text in texts], show_progress_bar=False, convert_to_numpy=True)

    return one_at_a_time(compute)
