"""OpenAI's chat protocol around questions and answers: what is read of a request, and what is said back."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from optimize.serving.answering import Answered, AnswerError, sources_of
from programs.types import Passage

_REFUSED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False),
    "audio": (None,),
    "response_format": (None, {"type": "text"}),
}
"""What would change the shape of the answer -> the values that do not. Sampling settings are the export's, and those of
a request are passed over, since clients send them unasked."""


def bad_request(message: str, code: str = "invalid_request", status: int = 400) -> AnswerError:
    """The error for a request that cannot be answered as it is."""
    return AnswerError(message, status, code)


def read_chat(body: Mapping[str, Any], model: str) -> tuple[Any, bool, bool]:
    """The question of a chat request, whether it wants a stream, and whether the stream is to end with the usage.

    The question is the text of the last user message. Earlier messages are not read: an export answers questions, each
    on its own.

    Raises:
        AnswerError: It asks for another model, for more than one answer, or for something other than text.
    """
    asked = body.get("model")
    if asked not in (None, model):
        raise bad_request(
            f"the model {asked!r} does not exist here; this server has {model!r}.", "model_not_found", 404
        )
    for name, harmless in _REFUSED.items():
        if body.get(name) not in harmless:
            raise bad_request(f"{name}: not possible here; leave it out.", "unsupported_parameter")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise bad_request("messages: must be a list of objects with role and content.")
    users = [message for message in messages if message.get("role") == "user"]
    if not users:
        raise bad_request("messages: holds no message of the user, and so no question.")
    stream, options = body.get("stream", False), body.get("stream_options") or {}
    if not isinstance(stream, bool | None) or not isinstance(options, dict):
        raise bad_request("stream: must be true or false, and stream_options an object.")
    return _text(users[-1].get("content")), bool(stream), bool(options.get("include_usage"))


def _text(content: Any) -> Any:
    """The text of a message; content of several parts must be text throughout."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise bad_request("messages: only text can be answered; send the question as text.")
    return "\n".join(part["text"] for part in content)


def completion(model: str, answered: Answered) -> dict[str, Any]:
    """A whole answer: OpenAI's `chat.completion`, with the passages under `sources`."""
    message = {
        "role": "assistant",
        "content": answered.answer,
        "refusal": None,
        "annotations": citations(answered),
    }
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    head = _head(model, "chat.completion")
    return {**head, "choices": [choice], "usage": usage(answered), "sources": answered.sources}


def usage(answered: Answered) -> dict[str, int]:
    """Tokens of all LM calls of an answer, as recorded the first time where they come from the cache."""
    read, written = answered.prompt_tokens, answered.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def citations(answered: Answered) -> list[dict[str, Any]]:
    """The passages as OpenAI's URL citations of the whole answer, by RFC 5147: `document#char=start,end`."""
    return [
        {
            "type": "url_citation",
            "url_citation": {**_place(passage), "start_index": 0, "end_index": len(answered.answer)},
        }
        for passage in answered.passages
    ]


def _place(passage: Passage) -> dict[str, str]:
    span = passage.span
    return {"url": f"{quote(span.doc_id)}#char={span.start},{span.end}", "title": passage.chunk.title or span.doc_id}


class Stream:
    """The events of one streamed answer, all under one id.

    The sources come as soon as they are found, the answer in one piece, when it is whole: a prompt format decides only
    at the end of the LM's reply which part of it is the answer, and words once sent cannot be taken back.

    Args:
        model: The name under which it is answered.
        include_usage: Whether a last event holds the tokens.
    """

    def __init__(self, model: str, include_usage: bool) -> None:
        self._head, self._include_usage = _head(model, "chat.completion.chunk"), include_usage

    def begin(self) -> bytes:
        """The first event, which says that an answer is on its way."""
        return self._chunk({"role": "assistant", "content": ""})

    def found(self, passages: tuple[Passage, ...]) -> bytes:
        """The sources, before the LM has read them; they come again with the answer."""
        return self._chunk({}, sources=sources_of(passages))

    def wait(self) -> bytes:
        """A comment that keeps proxies from closing a connection on which nothing happens."""
        return b": the language model is at work\n\n"

    def end(self, answered: Answered) -> Iterator[bytes]:
        """The answer, its sources, the end."""
        if answered.answer:
            yield self._chunk({"content": answered.answer})
        delta = {"annotations": citations(answered)}
        yield self._chunk(delta, finish_reason="stop", sources=answered.sources)
        if self._include_usage:
            yield _event({**self._head, "choices": [], "usage": usage(answered)})
        yield b"data: [DONE]\n\n"

    def fail(self, error: AnswerError) -> Iterator[bytes]:
        """The end where there is no answer."""
        yield _event(error_body(error))
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return _event({**self._head, "choices": [choice], **more})


def models(model: str, created: int) -> dict[str, Any]:
    """The list with the one model there is."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": created, "owned_by": "ragwright"}]}


def error_body(error: AnswerError) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": None, "code": error.code}}


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _event(content: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
