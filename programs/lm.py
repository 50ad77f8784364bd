"""Language models as a study names them, opened so that every call is cached, counted and stopped in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from dspy.clients.errors import error_boundary
from dspy.utils.exceptions import LMConfigurationError

from programs.addresses import secrets_of
from programs.environment import set_environment_defaults
from programs.errors import RagwrightError
from programs.gate import Gate
from programs.local_lm import CONTEXT_LENGTH, SLOTS, default_model, model_hash, open_local_engine
from programs.metered_lm import MeteredLM
from programs.metering import CallRecord, MeteredEngine, Role
from programs.remote_lm import NO_KEY, RemoteLM, find_address, find_key, find_provider, public_address
from programs.response_cache import ResponseCache

LOCAL = "local"
LOCAL_DEFAULTS: dict[str, Any] = {
    "endpoint": "completion",
    "max_tokens": 128,
    "context_length": CONTEXT_LENGTH,
    "threads": SLOTS,
}
LOCAL_HINTS = {
    "supports_response_schema": True,
    "supported_params": ("max_tokens", "temperature", "top_p", "stop", "seed", "response_format"),
}
SEED = 0


@dataclass(frozen=True, slots=True)
class LMSpec:
    """A language model as a study names it, made by `parse_lm`. It never holds a key.

    Attributes:
        model: `local`, `local:/path/model.gguf`, `local:hf:<owner>/<repository>/<file>`, or DSPy's `provider/model`.
        api_base: Address of the server, where it is not the provider's own.
        api_key_env: Environment variable that holds the key; None: the provider's usual one.
        endpoint: Where the compact format goes: `completion` as raw text, `chat` as a message. Other formats are chat.
        temperature: 0 for the likeliest answer; None: what the provider does.
        max_tokens: Longest answer in tokens; None: what the provider allows.
        context_length: Tokens that prompt and answer may have together; None where unknown.
        threads: Calls at the same time.
        timeout_s: Seconds to wait for one answer.
        retries: Further attempts of a call that failed in passing.
    """

    model: str
    api_base: str | None = None
    api_key_env: str | None = None
    endpoint: Literal["chat", "completion"] = "chat"
    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    context_length: int | None = None
    threads: int = 8
    timeout_s: float = 120.0
    retries: int = 3

    @property
    def is_local(self) -> bool:
        """Whether the model runs in this process."""
        return self.model == LOCAL or self.model.startswith(f"{LOCAL}:")

    def weights(self) -> Path:
        """The local model's file; one on the hub is downloaded, or found where an earlier download left it.

        Raises:
            RagwrightError: There is no such file.
        """
        place = self.model.partition(":")[2]
        if place.startswith("hf:"):
            return _hub_file(place.removeprefix("hf:"))
        if not place:
            return default_model()
        path = Path(place).expanduser()
        if not path.is_file():
            raise RagwrightError(f"{self.model}: there is no file {path}; write local:/path/model.gguf, or local.")
        return path

    def endpoint_identity(self) -> dict[str, Any]:
        """What answers: the part of a call's key that is not in the request."""
        if self.is_local:
            return {"weights": model_hash(self.weights())}
        return {"model": self.model, "api_base": _shown(find_address(self.model, self.api_base))}

    def identity(self) -> dict[str, Any]:
        """What decides the answers, JSON-serializable, for fingerprints: not the threads, the retries or the key."""
        sampling = {"endpoint": self.endpoint, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return {**self.endpoint_identity(), **sampling, "context_length": self.context_length}


def parse_lm(value: str | Mapping[str, Any]) -> LMSpec:
    """Read a language model from a study file's value: a name, or a mapping with the fields of `LMSpec`.

    Raises:
        RagwrightError: An unknown key, a value out of range, an unknown provider, or a file that is not there.
    """
    set_environment_defaults()
    given = {"model": value} if isinstance(value, str) else dict(value)
    known = [field.name for field in fields(LMSpec)]
    if unknown := sorted(set(map(str, given)) - set(known)):
        raise RagwrightError(f"unknown key {unknown[0]!r}; known keys: {', '.join(known)}")
    for name, item in given.items():
        holds, wanted = CHECKS[name]
        if not holds(item):
            raise RagwrightError(f"{name} is {item!r} and has to be {wanted}")
    if "model" not in given:
        raise RagwrightError("model is missing: name one, such as local or openai/gpt-4o-mini")
    spec = LMSpec(**given)
    if spec.is_local:
        spec = LMSpec(**{**LOCAL_DEFAULTS, **given})
        _check_local(spec)
    else:
        find_provider(spec.model)
    return spec


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (lambda item: isinstance(item, str) and bool(item.strip()), "a model's name"),
    "api_base": (
        lambda item: item is None or (isinstance(item, str) and item.startswith(("http://", "https://"))),
        "a URL",
    ),
    "api_key_env": (
        lambda item: item is None or (isinstance(item, str) and item.isidentifier()),
        "the name of an environment variable, never the key itself",
    ),
    "endpoint": (lambda item: item in ("chat", "completion"), "chat or completion"),
    "temperature": (lambda item: item is None or _number(item, 0, 2), "a number from 0 to 2, or null"),
    "max_tokens": (lambda item: item is None or _count(item, 1), "a number of tokens, or null"),
    "context_length": (lambda item: item is None or _count(item, 1), "a number of tokens, or null"),
    "threads": (lambda item: _count(item, 1), "a number of 1 or more"),
    "timeout_s": (lambda item: _number(item, 0.001, 86_400), "a number of seconds"),
    "retries": (lambda item: _count(item, 0), "a number of 0 or more"),
}
"""Field of `LMSpec` -> whether a value will do, and what does."""


def describe_endpoint(spec: LMSpec) -> str:
    """Who receives the prompts, and with them passages of the documents: the address and the model."""
    if spec.is_local:
        hub = spec.model.startswith(f"{LOCAL}:hf:")
        return f"this process ({spec.model.rpartition('/')[2] if hub else spec.weights().name})"
    address = find_address(spec.model, spec.api_base)
    return f"{_shown(address) or find_provider(spec.model).name} ({spec.model})"


def open_lm(
    spec: LMSpec,
    *,
    cache: ResponseCache | None = None,
    role: Role = "task",
    admit: Callable[[], None] | None = None,
    on_call: Callable[[CallRecord], None] | None = None,
    repeat: int = 0,
) -> MeteredLM:
    """Open a language model. Nothing is sent yet.

    Args:
        spec: Which one.
        cache: Where answers are kept; None: nowhere.
        role: What it is asked as.
        admit: Called before a call is sent; raises `BudgetExhaustedError` to refuse it.
        on_call: Called with the record of each call, from many threads.
        repeat: Another number asks the same calls anew.

    Raises:
        RagwrightError: A key, a file or a package is missing.
    """
    set_environment_defaults()
    metered = {"role": role, "cache": cache, "admit": admit, "on_call": on_call, "repeat": repeat}
    engine = (_local_engine if spec.is_local else _remote_engine)(spec, metered)
    name = f"{LOCAL}/{spec.weights().stem}" if spec.is_local else spec.model
    try:
        return MeteredLM(
            name, engine=engine, cache=False, num_retries=0, temperature=spec.temperature, max_tokens=spec.max_tokens
        )
    except LMConfigurationError as error:
        raise RagwrightError(f"{error}; set temperature: null and max_tokens: null for {spec.model}.") from None


def _local_engine(spec: LMSpec, metered: Mapping[str, Any]) -> MeteredEngine:
    engine = open_local_engine(spec.weights(), slots=spec.threads, context_length=spec.context_length or CONTEXT_LENGTH)

    def send(request: Any) -> Any:
        with error_boundary(spec.model):
            return engine.complete(request)

    return MeteredEngine(
        send,
        Gate(describe_endpoint(spec), "no key"),
        spec.endpoint_identity(),
        seed=SEED,
        price=lambda request, response: 0.0,
        bare_completions=spec.endpoint == "completion",
        hints=LOCAL_HINTS,
        **metered,
    )


def _remote_engine(spec: LMSpec, metered: Mapping[str, Any]) -> MeteredEngine:
    key = find_key(spec.model, spec.api_base, spec.api_key_env)
    address = find_address(spec.model, spec.api_base)
    if spec.endpoint == "completion" and address is None:
        raise RagwrightError(f"{spec.model}: endpoint: completion needs api_base, the server's address up to /v1.")
    remote = RemoteLM(spec.model, address, key, spec.timeout_s, spec.retries)
    secrets = [key.value or ""] if key.value != NO_KEY else []
    secrets += secrets_of(address or "")
    return MeteredEngine(
        remote.send,
        Gate(describe_endpoint(spec), key.origin, secrets),
        spec.endpoint_identity(),
        endpoint=remote.endpoint,
        price=remote.price,
        bare_completions=spec.endpoint == "completion",
        hints=remote.hints,
        **metered,
    )


def _check_local(spec: LMSpec) -> None:
    if spec.api_base is not None or spec.api_key_env is not None:
        raise RagwrightError(f"{spec.model} runs in this process and has neither api_base nor api_key_env; remove them")
    if not spec.model.startswith(f"{LOCAL}:hf:"):
        spec.weights()
    elif spec.model.count("/") < 2:
        raise RagwrightError(f"{spec.model!r} has to be local:hf:<owner>/<repository>/<file>.gguf")


@lru_cache(maxsize=8)
def _hub_file(place: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    owner, name, file = place.split("/", 2)
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = str(error).strip().splitlines()[0]
        raise RagwrightError(
            f"local:hf:{place} cannot be downloaded: {said}; check the name and the network."
        ) from None


def _shown(address: str | None) -> str | None:
    return public_address(address) if address else None


def _count(item: Any, least: int) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and item >= least


def _number(item: Any, least: float, most: float) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool) and least <= item <= most
