"""A small server on this machine that speaks the embeddings protocols of OpenAI, Cohere and Voyage."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

KEY = "sk-very-secret"


class EmbeddingServer(ThreadingHTTPServer):
    """Speaks as much of OpenAI's embeddings protocol as a client needs; texts that share words have near vectors."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EmbeddingHandler)
        self.batches: list[list[str]] = []
        self.input_types: list[object] = []
        self.reply: Callable[[list[dict[str, object]]], object] = lambda rows: rows
        self.refuse: Callable[[list[str]], int] = lambda texts: 200
        self.delay_s = 0.0
        self.open = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


class EmbeddingHandler(BaseHTTPRequestHandler):
    server: EmbeddingServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = request["texts"] if "texts" in request else request["input"]
        with self.server.lock:
            self.server.batches.append(texts)
            self.server.input_types.append(request.get("input_type"))
            self.server.open += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.open)
        time.sleep(self.server.delay_s)
        status = self.server.refuse(texts) if self.path in ("/v1/embeddings", "/cohere") else 404
        if status == 200:
            body = {"object": "list", "model": request["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
            body["data"] = self.server.reply([self._row(request, *item) for item in enumerate(texts)])
            if self.path == "/cohere":
                vectors = {"float": [row["embedding"] for row in body["data"]]}
                body = {"id": "x", "embeddings": vectors, "meta": {"billed_units": {"input_tokens": 1}}}
        else:
            body = {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "x", "code": "x"}}
        with self.server.lock:
            self.server.open -= 1
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @staticmethod
    def _row(request: dict[str, object], number: int, text: str) -> dict[str, object]:
        words = [np.random.default_rng(zlib.crc32(word.encode())).normal(size=16) for word in text.split()]
        vector: object = np.sum(words, axis=0).tolist()
        if request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<16f", *np.sum(words, axis=0))).decode()
        return {"object": "embedding", "index": number, "embedding": vector}

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    """A server that answers while the block lasts, as OpenAI's address in the environment."""
    with EmbeddingServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server
        server.shutdown()
        thread.join()
