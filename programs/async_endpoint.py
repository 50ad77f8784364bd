"""A server of one's own, asked from an event loop: a thread for each call would take longer than all the rest of it."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING, Any

from programs.completion import CompletionEngine, http_problem, is_bare

if TYPE_CHECKING:
    from dspy.clients.engines.lm15_engine import AsyncLM15Engine
    from dspy.lm15 import Request, Response, RouterConfig


class AsyncEndpoint:
    """Sends requests over connections that stay open, one attempt each. For one event loop.

    Args:
        model: DSPy's name for it.
        bare: Knows its address for bare completions, and their form.
        config: Its address and key for chats.
        timeout_s: Seconds to wait for an answer.
    """

    def __init__(self, model: str, bare: CompletionEngine, config: RouterConfig, timeout_s: float) -> None:
        self._model, self._bare, self._config, self._timeout_s = model, bare, config, timeout_s
        self._transport: Any = None
        self._chats: AsyncLM15Engine | None = None

    async def send(self, request: Request) -> Response:
        """Send a request.

        Raises:
            dspy.utils.exceptions.LMError: The server refused, failed or did not answer.
        """
        from dspy.clients.errors import error_boundary

        with error_boundary(self._model, unexpected=True):
            return await (self._complete(request) if is_bare(request) else self._chat(request))

    async def aclose(self) -> None:
        """Close the connections: a loop must not end before them."""
        if self._transport is not None:
            await self._transport.aclose()
        if self._chats is not None:
            await self._chats.aclose()

    async def _complete(self, request: Request) -> Response:
        from dspy import lm15
        from dspy._vendor.lm15 import transports

        body = json.dumps(self._bare.body(request)).encode()
        sent = transports.TransportRequest("POST", self._bare.url, list(self._bare.headers.items()), body)
        try:
            async with asyncio.timeout(self._timeout_s), self._connections().stream(sent) as reply:
                content = await reply.read()
            if reply.status < 400:
                return self._bare.read(request, json.loads(content))
            problem = http_problem(reply.status, content[:10_000].decode(errors="replace"))
        except TimeoutError:
            problem = lm15.TimeoutError("no answer in time")
        except (transports.TransportError, OSError) as error:
            problem = lm15.TransportError(f"no connection: {error}")
        except ValueError:
            problem = lm15.ProviderError("the server's answer is not JSON")
        raise problem

    async def _chat(self, request: Request) -> Response:
        from dspy.clients.engines.lm15_engine import AsyncLM15Engine

        if self._chats is None:
            self._chats = AsyncLM15Engine(self._config)
        return await self._chats.complete(request)

    def _connections(self) -> Any:
        from dspy._vendor.lm15.transports import StdlibAsyncTransport

        if self._transport is None:
            # Whether the environment names a proxy is looked up once, not for every call.
            proxied = bool(urllib.request.getproxies())
            # Nor is each step of a call watched by a task of its own: the call as a whole is.
            never: Any = None
            self._transport = StdlibAsyncTransport(
                read_timeout=never, write_timeout=never, pool_timeout=never, trust_env=proxied
            )
        return self._transport
