"""Embedding models behind an API, by LiteLLM."""

from __future__ import annotations

import os
from typing import Any

from programs.embedding_models import Compute, EmbeddingModel, Role
from programs.embedding_prompts import find_prompts
from programs.errors import EndpointError, RagwrightError
from programs.remote_lm import public_address

_BATCH, _IN_FLIGHT = 128, 4
# The most texts that Cohere takes at once (docs.cohere.com/reference/embed).
_SMALLER_BATCHES = {"cohere": 96}
# Where a setting says what the texts are, as prompts do elsewhere: docs.cohere.com/reference/embed and
# docs.voyageai.com/docs/embeddings. Without it LiteLLM has Cohere embed questions as passages.
_INPUT_TYPES: dict[str, dict[Role, str]] = {
    "cohere": {"question": "search_query", "passage": "search_document"},
    "voyage": {"question": "query", "passage": "document"},
}
_REFUSALS = ("AuthenticationError", "PermissionDeniedError", "NotFoundError", "APIConnectionError")


def find_api_model(name: str) -> EmbeddingModel:
    """The model `provider/model`, at the address and with the key that the provider's usual variables give."""
    provider = name.partition("/")[0]
    prompts = find_prompts(name)
    endpoint = _endpoint(name)
    address = public_address(endpoint) if endpoint else ""
    return EmbeddingModel(
        identity=" ".join(filter(None, (name, address, str(prompts)))),
        load=lambda: _open(name, endpoint),
        prompts=prompts,
        knows_roles=provider in _INPUT_TYPES,
        batch=_SMALLER_BATCHES.get(provider, _BATCH),
        in_flight=_IN_FLIGHT,
    )


def _open(name: str, endpoint: str) -> Compute:
    # Without it LiteLLM fetches a price list at its import.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm
    import openai

    # Otherwise it prints advice beside every error.
    litellm.suppress_debug_info = True
    settings = {"api_base": endpoint} if endpoint else {}
    input_types = _INPUT_TYPES.get(name.partition("/")[0])

    def compute(texts: list[str], role: Role) -> Any:
        said = {"input_type": input_types[role]} if input_types else {}
        try:
            # A cache of LiteLLM's would not tell endpoints apart.
            return _rows(litellm.embedding(model=name, input=texts, caching=False, **settings, **said).data)
        # LiteLLM raises ValueError for replies that it cannot read; its other errors are OpenAI's.
        except (openai.OpenAIError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _explained(name, endpoint, error) from None

    return compute


def _rows(data: list[Any]) -> list[Any]:
    """The vectors in the order of the texts, which is that of `index` wherever a server numbers its reply."""
    places = [item.get("index") for item in data]
    if sorted(place for place in places if isinstance(place, int)) == list(range(len(data))):
        data = [item for _, item in sorted(zip(places, data, strict=True), key=lambda pair: pair[0])]
    return [item["embedding"] for item in data]


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
