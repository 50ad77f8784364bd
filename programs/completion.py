"""Bare text completions: the prompt goes to the model as it is, with no chat template around it.

A prompt format that wants one marks its request with `BARE`, and only for an LM that can (`bare_completions`). The mark
is metadata of the request, so that a cached response tells the two kinds apart. It is not sent to any endpoint.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

BARE: dict[str, dict[str, bool]] = {"metadata": {"bare_completion": True}}
"""Keyword arguments of an LM call that mark it as a bare completion."""


def is_bare(request: Request) -> bool:
    """Whether the request carries the mark."""
    metadata = (request.config.extensions or {}).get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("bare_completion"))


def prompt_text(request: Request) -> str:
    """The text of all messages, joined by blank lines.

    Raises:
        dspy.lm15.UnsupportedFeatureError: A message holds more than text.
    """
    return "\n\n".join(message["content"] for message in chat_messages(request))


def chat_messages(request: Request) -> list[dict[str, str]]:
    """The messages as `role` and `content`, the system's first.

    Raises:
        dspy.lm15.UnsupportedFeatureError: A message holds more than text.
    """
    from dspy.lm15 import Message, TextPart, UnsupportedFeatureError

    messages = list(request.messages)
    if request.system:
        system = (TextPart(request.system),) if isinstance(request.system, str) else request.system
        messages.insert(0, Message(role="developer", parts=system))
    found = []
    for message in messages:
        if not all(isinstance(part, TextPart) for part in message.parts):
            raise UnsupportedFeatureError(f"{request.model} takes text only, and a {message.role} message holds more.")
        role = "system" if message.role == "developer" else message.role
        found.append({"role": role, "content": "".join(part.text for part in message.parts)})
    return found


def sampling_params(request: Request) -> dict[str, Any]:
    """The settings of the request that every OpenAI-compatible server takes, under its names for them."""
    config = request.config
    settings = {
        "max_tokens": config.max_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed,
        "frequency_penalty": config.frequency_penalty,
        "presence_penalty": config.presence_penalty,
        "stop": list(config.stop) or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def text_response(request: Request, text: str, answer: Mapping[str, Any], finish_reason: str | None) -> Response:
    """A response of one text, with the usage that an OpenAI-compatible `answer` reports."""
    from dspy.lm15 import Message, Response, TextPart, Usage

    usage = answer.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return Response(
        id=answer.get("id"),
        model=request.model,
        message=Message(role="assistant", parts=(TextPart(text),)),
        finish_reason="length" if finish_reason == "length" else "stop",
        usage=Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), cache_read_tokens=cached),
    )


class CompletionEngine:
    """A DSPy engine over the `/completions` address of an OpenAI-compatible server: one attempt per call.

    Args:
        model: The model's name on the server.
        api_base: The server's address up to `/v1`.
        api_key: The key, or None for a server that asks for none.
        timeout_s: Seconds to wait for an answer.
    """

    def __init__(self, model: str, api_base: str, api_key: str | None, timeout_s: float) -> None:
        self._model, self.url, self._timeout_s = model, api_base.rstrip("/") + "/completions", timeout_s
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def complete(self, request: Request) -> Response:
        """Continue the request's text.

        Raises:
            dspy.lm15.LM15Error: What the server or the network refused, by kind.
        """
        return self.read(request, self._post(self.body(request)))

    def body(self, request: Request) -> dict[str, Any]:
        """What the server is sent."""
        return {"model": self._model, "prompt": prompt_text(request), **sampling_params(request)}

    def read(self, request: Request, answer: Any) -> Response:
        """The response in what the server said, decoded from JSON.

        Raises:
            dspy.lm15.ProviderError: It holds none.
        """
        try:
            choice = answer["choices"][0]
            return text_response(request, str(choice["text"]), answer, choice.get("finish_reason"))
        except (KeyError, IndexError, TypeError):
            from dspy.lm15 import ProviderError

            raise ProviderError("the server's answer holds no completion") from None

    def close(self) -> None:
        """Nothing is held between calls."""

    def _post(self, body: Mapping[str, Any]) -> Any:
        from dspy.lm15 import ProviderError, TimeoutError, TransportError

        request = urllib.request.Request(self.url, json.dumps(body).encode(), self.headers)
        try:
            with urllib.request.build_opener(_Stay).open(request, timeout=self._timeout_s) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            problem = http_problem(error.code, error.read(10_000).decode(errors="replace"))
        except (OSError, http.client.HTTPException) as error:
            late = "timed out" in str(error)
            problem = TimeoutError("no answer in time") if late else TransportError(f"no connection: {error}")
        except ValueError:
            problem = ProviderError("the server's answer is not JSON")
        # Outside the handlers, so that no error keeps the one it was made from, nor the request with its key.
        raise problem


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes no server's word for another address: the key and the documents would go there, too."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: a redirection is an error."""


def http_problem(status: int, text: str) -> Exception:
    """The error that an HTTP status says, with what the server wrote."""
    from dspy import lm15

    kinds: dict[int, type[Exception]] = {
        401: lm15.AuthError,
        402: lm15.BillingError,
        403: lm15.AuthError,
        404: lm15.UnsupportedModelError,
        408: lm15.TimeoutError,
        429: lm15.RateLimitError,
        504: lm15.TimeoutError,
    }
    kind = kinds.get(status, lm15.ServerError if status >= 500 else lm15.InvalidRequestError)
    return kind(text[:500] or f"HTTP {status}", status=status)
