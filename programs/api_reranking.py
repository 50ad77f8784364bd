"""Reranking models behind an API, by LiteLLM."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from programs.cross_encoding import Pair, ScoringModel
from programs.errors import EndpointError, RagwrightError

PROVIDERS = (
    *("cohere", "jina_ai", "voyage", "infinity", "hosted_vllm", "azure_ai", "bedrock", "dashscope", "deepinfra"),
    *("fireworks_ai", "huggingface", "litellm_proxy", "nvidia_nim", "scaleway", "together_ai", "vertex_ai", "watsonx"),
)
"""Services whose rerankers LiteLLM reaches; `infinity` and `hosted_vllm` are servers of one's own."""

_IN_FLIGHT = 4
_TIMEOUT_S = 60.0
# Seconds before another attempt where a limit was hit or the server failed.
_PAUSES_S = (1.0, 4.0)
_PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})
_REFUSALS = frozenset({"AuthenticationError", "PermissionDeniedError", "NotFoundError", "APIConnectionError"})

Ask = Callable[[str, list[str]], Any]
"""A question and passages -> LiteLLM's results."""


def check_api_name(name: str) -> None:
    """Refuse a name that is not `provider/model` with a provider that reranks.

    Raises:
        RagwrightError: It is not.
    """
    provider, _, model = name.partition("/")
    if provider not in PROVIDERS or not model:
        raise RagwrightError(
            f"reranker: {name!r} names no reranking API; write provider/model with one of {', '.join(PROVIDERS)} "
            "(a chat model reranks as llm)."
        )


def find_api_model(name: str) -> ScoringModel:
    """The model `provider/model`, at the address and with the key that the provider's usual variables give.

    Raises:
        RagwrightError: The provider is unknown.
    """
    from programs.remote_lm import public_address

    check_api_name(name)
    endpoint = _endpoint(name)
    identity = f"{name} {public_address(endpoint)}" if endpoint else name
    return ScoringModel(name, identity, lambda: ApiScorer(name, endpoint, _open(name, endpoint)))


class ApiScorer:
    """Asks for all passages of a question at once, and for a few questions at the same time.

    Args:
        name: The name that configurations give the model, for messages.
        endpoint: The address that the environment names; empty for the provider's own.
        ask: Sends one request.
    """

    def __init__(self, name: str, endpoint: str, ask: Ask) -> None:
        self._name, self._endpoint, self._ask = name, endpoint, ask

    def score(self, pairs: Sequence[Pair]) -> Iterator[Mapping[Pair, float]]:
        """Score question by question, as answers come.

        Raises:
            EndpointError: The endpoint refuses every call.
            RagwrightError: It fails, or its answer is not a score for each passage.
        """
        passages: dict[str, list[str]] = {}
        for question, text in pairs:
            passages.setdefault(question, []).append(text)
        # A wrong key or name costs one request, not several.
        first, *others = passages
        yield self._scores(first, passages[first])
        if others:
            yield from self._in_parallel({question: passages[question] for question in others})

    def _in_parallel(self, passages: Mapping[str, list[str]]) -> Iterator[Mapping[Pair, float]]:
        """After an error no more requests are sent; the answers to those that were sent are not thrown away."""
        errors: list[RagwrightError] = []
        with ThreadPoolExecutor(min(_IN_FLIGHT, len(passages)), thread_name_prefix="reranking") as pool:
            futures = [pool.submit(self._scores, question, texts) for question, texts in passages.items()]
            try:
                for future in as_completed(futures):
                    if future.cancelled():
                        continue
                    try:
                        yield future.result()
                    except RagwrightError as error:
                        errors.append(error)
                        pool.shutdown(wait=False, cancel_futures=True)
            finally:
                pool.shutdown(cancel_futures=True)
        if errors:
            raise errors[0]

    def _scores(self, question: str, texts: list[str]) -> dict[Pair, float]:
        results = self._patiently(question, texts)
        try:
            scores = {int(result["index"]): float(result["relevance_score"]) for result in results}
        except (KeyError, TypeError, ValueError):
            scores = {}
        if sorted(scores) != list(range(len(texts))) or len(results) != len(texts):
            raise RagwrightError(
                f"reranker {self._name!r} failed: its answer is not one score for each of {len(texts)} passages."
            )
        return {(question, text): scores[place] for place, text in enumerate(texts)}

    def _patiently(self, question: str, texts: list[str]) -> Any:
        """Send the request, again after a pause where that may help."""
        import openai

        for pause in (*_PAUSES_S, None):
            try:
                return self._ask(question, texts)
            # LiteLLM raises ValueError for replies that it cannot read; its other errors are OpenAI's.
            except (openai.OpenAIError, ValueError, KeyError, TypeError, AttributeError) as error:
                if pause is None or not _passes(error):
                    raise _explained(self._name, self._endpoint, error) from None
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _open(name: str, endpoint: str) -> Ask:
    # Without it LiteLLM fetches a price list at its import.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    # Otherwise it prints advice beside every error, and logs the provider's text, which may quote the key.
    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").addFilter(_no_provider_text)
    settings = {"api_base": endpoint} if endpoint else {}

    def ask(question: str, texts: list[str]) -> Any:
        # A cache of LiteLLM's would not tell endpoints apart.
        return litellm.rerank(
            model=name,
            query=question,
            documents=texts,
            return_documents=False,
            timeout=_TIMEOUT_S,
            caching=False,
            **settings,
        ).results

    return ask


def _no_provider_text(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Error in rerank")


def _endpoint(name: str) -> str:
    """The address that the environment gives for the provider; empty for the provider's own."""
    provider = name.partition("/")[0].upper()
    return os.environ.get(f"{provider}_API_BASE") or os.environ.get(f"{provider}_BASE_URL") or ""


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    return type(error).__name__ not in _REFUSALS and getattr(error, "status_code", None) in _PASSING


def _explained(name: str, endpoint: str, error: Exception) -> RagwrightError:
    """One line without the provider's own text, which may quote the key."""
    kind = type(error).__name__
    status = getattr(error, "status_code", None)
    where = "its endpoint" if endpoint else "the provider"
    reason = f"{where} answered with {kind}" + (f" (status {status})" if status else "")
    provider = name.partition("/")[0].upper()
    mend = f"check the model's name, {provider}_API_KEY and {provider}_API_BASE"
    refused = kind in _REFUSALS
    return (EndpointError if refused else RagwrightError)(f"reranker {name!r} failed: {reason}; {mend}.")
