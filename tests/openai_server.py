"""A small server on this machine that speaks OpenAI's chat and completion protocol and does what a test tells it to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Logged:
    """One request that reached the server."""

    path: str
    body: dict[str, Any]
    key: str | None
    status: int

    @property
    def prompt(self) -> str:
        """The text that the model was sent."""
        if "prompt" in self.body:
            return str(self.body["prompt"])
        return "\n\n".join(str(message["content"]) for message in self.body["messages"])


@dataclass
class OpenAIServer:
    """Answers on 127.0.0.1 while the `with` block lasts.

    Attributes:
        answer: Request body -> the model's text.
        key: The only key let in; None lets everyone in. Others get a 401 that repeats the key they sent.
        models: Model names known; None knows all. Others get a 404.
        delay_s: Seconds before each answer.
        requests: Every request so far, in the order of their answers.
        most_at_once: The largest number of requests that were open at the same time.
    """

    answer: Callable[[dict[str, Any]], str] = lambda body: "forty-two"
    key: str | None = None
    models: tuple[str, ...] | None = None
    delay_s: float = 0.0
    requests: list[Logged] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._failures: deque[tuple[int, str]] = deque()
        self._lock = threading.Lock()
        self._open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def fail(self, status: int, times: int = 1, text: str = "told to fail") -> None:
        """Answer the next `times` requests with an error."""
        self._failures.extend([(status, text)] * times)

    def __enter__(self) -> Self:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one packet: two wait for each other for 40 ms.
            wbufsize = -1

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                header = self.headers.get("Authorization")
                status, content = server._serve(self.path, body, header.removeprefix("Bearer ") if header else None)
                payload = json.dumps(content).encode()
                # A client that stopped waiting has closed the connection.
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        time.sleep(self.delay_s)
        status, content = self._respond(path, body, key)
        with self._lock:
            self._open -= 1
            self.requests.append(Logged(path, body, key, status))
        return status, content

    def _respond(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        if self.key is not None and key != self.key:
            return _error(401, f"Incorrect API key provided: {key}", "invalid_api_key")
        if self.models is not None and body["model"] not in self.models:
            return _error(404, f"The model {body['model']} does not exist", "model_not_found")
        with self._lock:
            failure = self._failures.popleft() if self._failures else None
        if failure is not None:
            return _error(*failure, "told_to_fail")
        return 200, self._completion(path, body)

    def _completion(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        text = self.answer(body)
        message = {"message": {"role": "assistant", "content": text}}
        choice = {"text": text} if path == "/v1/completions" else message
        read, written = len(Logged(path, body, None, 200).prompt.split()), len(text.split())
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        kind = "text_completion" if path == "/v1/completions" else "chat.completion"
        choices = [{"index": 0, "finish_reason": "stop", **choice}]
        return {"id": "x", "object": kind, "created": 0, "model": body["model"], "choices": choices, "usage": usage}


def _error(status: int, message: str, code: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": code}}
