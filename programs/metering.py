"""The one place that every call of every language model passes: cached, counted, timed, and stopped when it must be."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from programs.errors import BudgetExhaustedError
from programs.rollout import current_sample

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from programs.async_endpoint import AsyncEndpoint
    from programs.gate import Gate
    from programs.response_cache import ResponseCache

_HALVES = re.compile("[\ud800-\udfff]")
Role = Literal["task", "reflection", "judge"]


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call of a language model that was sent, or answered from the cache.

    Attributes:
        role: What the model was asked as.
        key: The key in the response cache: equal calls have equal keys.
        prompt_tokens: Tokens read; 0 where the endpoint does not say.
        completion_tokens: Tokens written; 0 where the endpoint does not say.
        cached_prompt_tokens: How many of `prompt_tokens` the endpoint had in its own prefix cache.
        latency_s: Seconds until the answer; of a cached answer, those of its first time.
        usd: Price of the call, of a cached answer that of its first time; None where unknown.
        paid: Whether the call was really sent.
        error: Class and first line of what went wrong, or None.
    """

    role: Role
    key: str
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    latency_s: float
    usd: float | None
    paid: bool
    error: str | None = None


_collectors: ContextVar[tuple[list[CallRecord], ...]] = ContextVar("ragwright_collectors", default=())


@contextmanager
def collect_calls() -> Iterator[list[CallRecord]]:
    """A list that fills with the records of the calls made inside: by this thread, and by copies of its context."""
    records: list[CallRecord] = []
    token = _collectors.set((*_collectors.get(), records))
    try:
        yield records
    finally:
        _collectors.reset(token)


class MeteredEngine:
    """A DSPy engine around what really sends a request.

    Args:
        send: Sends one request and returns the response, its retries included.
        gate: The endpoint's gate.
        identity: What answers, JSON-serializable: model and address, or the hash of the model's file.
        role: What the model is asked as.
        cache: Where answers are kept; None: nowhere, and every call is sent.
        admit: Called before a call is sent; raises `BudgetExhaustedError` to refuse it.
        on_call: Called after each call, cached or sent, failed or not; from many threads.
        repeat: Which repetition of the same calls this is: another number never meets the other's answers.
        endpoint: Sends one request from an event loop, in one attempt; None where that takes a thread.
        seed: Base of the requests' seeds; None: requests keep what they came with.
        price: The price in USD of a response, None where unknown.
        bare_completions: Whether `programs.completion.BARE` requests may be sent.
        hints: `supports_response_schema`, `supported_params` …, as DSPy asks an engine for them.
    """

    def __init__(
        self,
        send: Callable[[Request], Response],
        gate: Gate,
        identity: Mapping[str, Any],
        *,
        role: Role = "task",
        cache: ResponseCache | None = None,
        admit: Callable[[], None] | None = None,
        on_call: Callable[[CallRecord], None] | None = None,
        repeat: int = 0,
        endpoint: AsyncEndpoint | None = None,
        seed: int | None = None,
        price: Callable[[Request, Response], float | None] = lambda request, response: None,
        bare_completions: bool = False,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        self._send, self._endpoint = send, endpoint
        self._gate, self._identity, self._cache = gate, dict(identity), cache
        self._role, self._repeat, self._seed, self._price = role, repeat, seed, price
        self._admit = admit or (lambda: None)
        self._on_call = on_call or (lambda record: None)
        self._hints = dict(hints or {})
        self.bare_completions = bare_completions
        self._lock = threading.Lock()
        self._errors = 0
        self._under_way: dict[str, asyncio.Future[None]] = {}

    @property
    def errors(self) -> int:
        """Calls that failed, refused ones included: DSPy's optimizers swallow the exceptions and go on."""
        return self._errors

    @property
    def refusal(self) -> str | None:
        """Why the endpoint refuses every call, or None."""
        return self._gate.refusal

    @property
    def supports_function_calling(self) -> bool:
        """Whether the model calls tools."""
        return bool(self._hint("supports_function_calling", False))

    @property
    def supports_reasoning(self) -> bool:
        """Whether the model has a reasoning effort to set."""
        return bool(self._hint("supports_reasoning", False))

    @property
    def supports_response_schema(self) -> bool:
        """Whether the model can be held to a JSON schema."""
        return bool(self._hint("supports_response_schema", False))

    @property
    def supported_params(self) -> frozenset[str]:
        """The call parameters that reach the model."""
        return frozenset(self._hint("supported_params", ()))

    def complete(self, request: Request) -> Response:
        """Answer a request, from the cache if it was asked before.

        Raises:
            EndpointError: The endpoint refuses every call.
            BudgetExhaustedError: The budget does not allow the call.
            dspy.utils.exceptions.LMError: This call failed.
        """
        request, key = self._identify(request)
        with self._alone(key):
            return self._recall(key) or self._ask(key, request)

    async def acomplete(self, request: Request) -> Response | None:
        """Answer a request from an event loop, where all goes well; None: it takes `complete`, in a thread.

        That is where an endpoint has not answered yet or is in doubt, and where the one attempt made here fails:
        `complete` asks again, with its retries and its probes, and knows what to say.

        Raises:
            BudgetExhaustedError: The budget does not allow the call.
        """
        from dspy.utils.exceptions import LMError

        request, key = self._identify(request)
        while (first := self._under_way.get(key)) is not None:
            await asyncio.wait([first])
        known = self._recall(key)
        if known is not None or self._endpoint is None or not self._gate.is_sure:
            return known
        self._admit()
        self._under_way[key] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        try:
            response = _readable(await self._endpoint.send(request))
            latency_s, usd = time.perf_counter() - started, self._price(request, response)
            self._report(self._record(key, response, latency_s, usd, paid=True))
            self._keep(key, response, latency_s, usd)
        except LMError as error:
            self._report(self._failure(key, error, time.perf_counter() - started))
            return None
        finally:
            self._under_way.pop(key).set_result(None)
        return response

    def confirm(self) -> None:
        """Make sure that the endpoint lives where its latest call failed: ask before failures are kept as results.

        Raises:
            EndpointError: It does not, and what failed is no result.
        """
        # Where the budget is used up nothing more is asked, and what was paid for is kept.
        with suppress(BudgetExhaustedError):
            self._gate.confirm()

    def close(self) -> None:
        """Nothing to close: what sends is shared by several engines."""

    async def aclose(self) -> None:
        """Close what `acomplete` opened; for the end of its event loop."""
        if self._endpoint is not None:
            await self._endpoint.aclose()

    def __deepcopy__(self, memo: dict[int, Any]) -> MeteredEngine:
        # Copies of a program count, and pay, with the same engine.
        return self

    def _hint(self, name: str, default: Any) -> Any:
        hint = self._hints.get(name, default)
        return hint() if callable(hint) else hint

    def _alone(self, key: str) -> AbstractContextManager[None]:
        return self._cache.alone(key) if self._cache is not None else nullcontext()

    def _identify(self, request: Request) -> tuple[Request, str]:
        """The request with its seed, and its key. At temperature 0 all samples are one."""
        from dspy._vendor.lm15.serde import request_to_dict

        sample = None if request.config.temperature == 0 else current_sample()
        key = _digest([self._identity, request_to_dict(request), self._repeat, sample])
        if self._seed is not None and request.config.seed is None:
            seed = self._seed if sample is None else (self._seed + int(key[:8], 16)) % 2**31
            request = replace(request, config=replace(request.config, seed=seed))
            key = _digest([key, seed])
        return request, key

    def _recall(self, key: str) -> Response | None:
        """The kept answer, reported; None where there is none that can be read."""
        from dspy._vendor.lm15.serde import response_from_dict

        known = self._cache.get(key) if self._cache is not None else None
        if known is None:
            return None
        try:
            response: Response = response_from_dict(known["response"])
            record = self._record(key, response, float(known["latency_s"]), known["usd"], paid=False)
        except (KeyError, TypeError, ValueError):
            return None
        self._report(record)
        return response

    def _ask(self, key: str, request: Request) -> Response:
        try:
            response, latency_s, usd = self._gate.call(lambda: self._sent(key, request))
        except BudgetExhaustedError:
            raise
        except Exception:
            with self._lock:
                self._errors += 1
            raise
        self._keep(key, response, latency_s, usd)
        return response

    def _sent(self, key: str, request: Request) -> tuple[Response, float, float | None]:
        """One admitted call, reported: the answer, its seconds and its price. The gate's probes come here, too."""
        self._admit()
        started = time.perf_counter()
        try:
            response = _readable(self._send(request))
        except Exception as error:
            self._report(self._failure(key, error, time.perf_counter() - started))
            raise
        latency_s = _reported_latency(response) or time.perf_counter() - started
        usd = self._price(request, response)
        self._report(self._record(key, response, latency_s, usd, paid=True))
        return response, latency_s, usd

    def _keep(self, key: str, response: Response, latency_s: float, usd: float | None) -> None:
        from dspy._vendor.lm15.serde import response_to_dict

        if self._cache is not None:
            plain = response_to_dict(response, include_provider_data=False)
            self._cache.put(key, {"response": plain, "latency_s": latency_s, "usd": usd})

    def _record(self, key: str, response: Response, latency_s: float, usd: float | None, *, paid: bool) -> CallRecord:
        usage = response.usage
        tokens = (usage.input_tokens or 0, usage.output_tokens or 0, usage.cache_read_tokens or 0)
        return CallRecord(self._role, key, *tokens, latency_s, usd, paid)

    def _failure(self, key: str, error: Exception, latency_s: float) -> CallRecord:
        said = self._gate.clean(f"{type(error).__name__}: {error}").splitlines()[0][:500]
        return CallRecord(self._role, key, 0, 0, 0, latency_s, None, paid=True, error=said)

    def _report(self, record: CallRecord) -> None:
        for records in _collectors.get():
            records.append(record)
        self._on_call(record)


def _readable(response: Response) -> Response:
    """The response without halves of surrogate pairs, which a model can say and nothing can write to a file."""
    from dspy.lm15 import TextPart

    parts = response.message.parts
    if all(not isinstance(part, TextPart) or _HALVES.search(part.text) is None for part in parts):
        return response
    clean = (replace(p, text=_HALVES.sub("\ufffd", p.text)) if isinstance(p, TextPart) else p for p in parts)
    return replace(response, message=replace(response.message, parts=tuple(clean)))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _reported_latency(response: Response) -> float | None:
    """What the engine itself measured, where it says so: without the time spent waiting for a free slot."""
    seconds = (response.provider_data or {}).get("latency_s")
    return float(seconds) if isinstance(seconds, int | float) else None
