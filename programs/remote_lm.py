"""Language models behind an address: where they are, whose key opens them, and how a request gets there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from programs.async_endpoint import AsyncEndpoint
from programs.completion import CompletionEngine, is_bare
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from dspy.clients.engines.lm15_engine import LM15Engine
    from dspy.lm15 import Request, Response, RouterConfig

NO_KEY = "no-key"
"""Sent where a person names an address and no key: many local servers want some word there."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A service as DSPy knows it.

    Attributes:
        name: DSPy's name, or the model's prefix where litellm is what reaches it.
        address: Its address up to the version, None where unknown.
        key_names: Environment variables that may hold its key, the usual one first.
        needs_key: Whether it is known to answer nobody without a key.
        native: Whether DSPy reaches it itself, without litellm.
    """

    name: str
    address: str | None
    key_names: tuple[str, ...]
    needs_key: bool
    native: bool


@lru_cache(maxsize=64)
def find_provider(model: str) -> Provider:
    """The service that `model` names.

    Raises:
        RagwrightError: No service is known by that prefix.
    """
    from dspy._vendor.lm15.registry import lookup
    from dspy.clients.engines.lm15_engine import LM15Engine
    from dspy.lm15 import ConfigurationError, RouterConfig

    try:
        name = LM15Engine(RouterConfig(env={})).resolve(model).provider
    except ConfigurationError:
        return _litellm_provider(model)
    definition = lookup(name)
    address = definition.base_url or _default_address(definition.adapter)
    return Provider(name, address, tuple(definition.env_keys), bool(definition.env_keys), native=True)


def _default_address(adapter: Any) -> str | None:
    defaults = {field.name: field.default for field in fields(adapter)}
    found = defaults.get("base_url")
    return found if isinstance(found, str) else None


def _litellm_provider(model: str) -> Provider:
    import litellm

    prefix = model.partition("/")[0]
    known = sorted(str(getattr(provider, "value", provider)) for provider in litellm.provider_list)
    if "/" not in model or prefix not in known:
        raise RagwrightError(
            f"unknown model {model!r}: write local, local:/path/model.gguf or provider/model, such as "
            "openai/gpt-4o-mini, anthropic/…, gemini/…, ollama_chat/…; a server of your own is openai/<its model> "
            "with api_base"
        )
    return Provider(prefix, None, (f"{prefix.upper()}_API_KEY",), needs_key=False, native=False)


def find_address(model: str, api_base: str | None) -> str | None:
    """Where the requests go: what the person wrote, else what the environment says, else the service's own address."""
    prefix = model.partition("/")[0].upper()
    named = (os.environ.get(f"{prefix}_{suffix}") for suffix in ("API_BASE", "BASE_URL"))
    return api_base or next(filter(None, named), None) or find_provider(model).address


def public_address(address: str) -> str:
    """The address without a user, a password or a query: what may be shown."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    shown = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, shown, parts.path.rstrip("/"), "", ""))


@lru_cache(maxsize=256)
def _is_listed(provider: str, model: str) -> bool:
    """Whether the price list that comes with DSPy has the model: looking for one that it lacks takes milliseconds."""
    from dspy.clients.model_metadata import model_info

    return bool(model_info(provider, model))


@dataclass(frozen=True, slots=True)
class Key:
    """A key and where it came from. It is never printed.

    Attributes:
        value: The key, or None where the service reads its own or needs none.
        origin: As people read it.
    """

    value: str | None
    origin: str

    def __repr__(self) -> str:
        return f"Key(origin={self.origin!r})"


def find_key(model: str, api_base: str | None, api_key_env: str | None) -> Key:
    """The key of an endpoint, out of the environment.

    A service's usual key is not sent to an address that the study names: a study file that came from elsewhere could so
    carry it off. There, the variable has to be named as well.

    Raises:
        RagwrightError: The named variable, or the usual one of a service that needs a key, is not set.
    """
    provider = find_provider(model)
    if api_key_env is not None:
        if not os.environ.get(api_key_env):
            raise RagwrightError(
                f"{model}: the environment variable {api_key_env} (api_key_env) is not set; put the key there."
            )
        return Key(os.environ[api_key_env], api_key_env)
    if api_base is not None:
        return Key(NO_KEY, "the environment variable that api_key_env names")
    usual = " or ".join(provider.key_names)
    value = next((os.environ[name] for name in provider.key_names if os.environ.get(name)), None)
    if value is None and provider.needs_key:
        raise RagwrightError(
            f"{model} needs a key: set the environment variable {usual}, or name another with api_key_env."
        )
    return Key(value, usual or "the environment variable that api_key_env names")


class RemoteLM:
    """Sends requests to one endpoint, through DSPy's own client.

    Args:
        model: DSPy's name for it.
        address: Where it is; None: the service's own.
        key: Its key.
        timeout_s: Seconds to wait for an answer.
        retries: Further attempts where the network, a limit or the server failed; never where the key was refused.

    Attributes:
        endpoint: The same from an event loop, in one attempt; None where that takes a thread: no retry is allowed, or
            the service is not one's own server.

    Raises:
        RagwrightError: The settings are not what this model takes.
    """

    def __init__(self, model: str, address: str | None, key: Key, timeout_s: float, retries: int) -> None:
        import dspy
        from dspy.clients.engines.lm15_engine import LM15Engine

        self._model, self._address, self._key = model, address, key
        self._provider = find_provider(model)
        clients = {"api_base": address if address != self._provider.address else None, "api_key": key.value}
        given = {name: value for name, value in clients.items() if value is not None}
        # An explicit Request carries the sampling parameters; the client has none of its own.
        self._chat = dspy.LM(model, cache=False, num_retries=retries, timeout=timeout_s, **given)
        self._retries = retries
        name = model.partition("/")[2] or model
        self._bare = CompletionEngine(name, address, key.value, timeout_s) if address else None
        self._own: LM15Engine | None = None
        self.endpoint: AsyncEndpoint | None = None
        if self._bare is not None and self._provider.native and address != self._provider.address:
            config = self._own_server(key, timeout_s)
            # Through its client, DSPy would look after each call for a price that no list has: some milliseconds,
            # which is more than all the rest of a call.
            self._own = LM15Engine(config)
            if retries:
                # An attempt from the loop that fails is made again by a thread, which is a retry.
                self.endpoint = AsyncEndpoint(model, self._bare, config, timeout_s)

    @property
    def hints(self) -> dict[str, Callable[[], Any]]:
        """What the model can do, as DSPy knows it; looked up when asked."""
        return {
            "supports_function_calling": lambda: self._chat.supports_function_calling,
            "supports_reasoning": lambda: self._chat.supports_reasoning,
            "supports_response_schema": lambda: self._chat.supports_response_schema,
            "supported_params": lambda: self._chat.supported_params,
        }

    def send(self, request: Request) -> Response:
        """Send a request, with its retries.

        Raises:
            dspy.utils.exceptions.LMError: The endpoint refused or did not answer.
        """
        if is_bare(request):
            assert self._bare is not None, "a bare completion needs an address"
            return self._attempts(self._bare.complete, request)
        if self._own is not None:
            return self._attempts(self._own.complete, request)
        import dspy

        # The caller's LM already writes the history, counts the usage and runs the callbacks of this call.
        with dspy.context(disable_history=True, usage_tracker=None, callbacks=[], send_stream=None):
            response: Response = self._chat(request)
        return response

    def _attempts(self, complete: Callable[[Request], Response], request: Request) -> Response:
        """Ask until there is an answer, the error is one that stays, or the retries are used up."""
        from dspy.clients.errors import error_boundary
        from dspy.utils.exceptions import is_retryable_lm_error

        attempt = 0
        while True:
            try:
                with error_boundary(self._model, provider=self._provider.name, unexpected=True):
                    return complete(request)
            except Exception as error:
                if attempt >= self._retries or not is_retryable_lm_error(error):
                    raise
                wait = getattr(error, "retry_after", None)
            time.sleep(min(2**attempt, 60) if wait is None else wait)
            attempt += 1

    def _own_server(self, key: Key, timeout_s: float) -> RouterConfig:
        from dspy.lm15 import RouterConfig, Timeouts

        name, address = self._provider.name, self._address
        return RouterConfig(
            api_keys={name: key.value} if key.value is not None else None,
            base_urls={name: address} if address is not None else None,
            timeouts=Timeouts(read=timeout_s, write=timeout_s),
        )

    def price(self, request: Request, response: Response) -> float | None:
        """The price in USD by the price list that comes with DSPy or litellm; None where the model is not on it."""
        if not self._provider.native:
            return self._listed_price(response)
        from dspy.clients.costs import estimate_cost

        model = self._model.partition("/")[2] or self._model
        if not _is_listed(self._provider.name, response.model) and not _is_listed(self._provider.name, model):
            return None
        usd: float | None = estimate_cost(
            response, provider=self._provider.name, requested_model=model, request=request
        )[0]
        return usd

    def _listed_price(self, response: Response) -> float | None:
        import litellm

        entry = litellm.model_cost.get(self._model) or {}
        prices = (entry.get("input_cost_per_token"), entry.get("output_cost_per_token"))
        tokens = (response.usage.input_tokens, response.usage.output_tokens)
        if None in prices or None in tokens:
            return None
        return float(sum(price * number for price, number in zip(prices, tokens, strict=True)))
