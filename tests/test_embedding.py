from __future__ import annotations

import base64
import json
import logging
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from programs.embedding import Embedder, embedder_identity, open_embedder
from programs.errors import EndpointError, RagwrightError

KEY = "sk-very-secret"


@pytest.fixture
def wordllama() -> Embedder:
    return open_embedder("wordllama")


def test_rows_have_length_one_and_blank_texts_give_zeros(wordllama: Embedder) -> None:
    vectors = wordllama.embed(["a harbour", "", "the quay", " \n"])
    assert vectors.dtype == np.float32 and vectors.shape == (4, 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 0], abs=1e-5)


def test_nothing_and_blanks_alone_keep_the_dimensions(wordllama: Embedder) -> None:
    assert wordllama.embed([]).shape == (0, 256)
    assert not wordllama.embed([""]).any() and wordllama.embed([""]).shape == (1, 256)


def test_near_texts_are_near(wordllama: Embedder) -> None:
    ship, boat, tax = wordllama.embed(["a ship in the harbour", "a boat in the port", "income tax law"])
    assert ship @ boat > ship @ tax


def test_a_text_embeds_the_same_alone_and_among_others(wordllama: Embedder) -> None:
    texts = [f"text {number} " * number for number in range(1, 70)]
    assert wordllama.embed(texts)[:1] == pytest.approx(wordllama.embed(texts[:1]), abs=1e-6)


def test_the_counter_counts_work_and_questions_are_kept() -> None:
    embedder = Embedder("mine", lambda texts: np.ones((len(texts), 3)))
    embedder.embed(["a", "", "b"])
    assert embedder.texts_embedded == 2
    for _ in range(3):
        vector = embedder.embed_question("why?")
    assert embedder.texts_embedded == 3
    assert vector == pytest.approx([3**-0.5] * 3)
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[float("nan")], [1.0]], [1.0, 2.0]])
def test_rows_that_cannot_be_used_are_refused(rows: list[object]) -> None:
    with pytest.raises(RagwrightError, match="embedder 'odd' returned"):
        Embedder("odd", lambda texts: rows).embed(["a", "b"])


def test_many_threads_share_one_embedder(wordllama: Embedder) -> None:
    texts = [f"question {number}" for number in range(200)]
    expected = wordllama.embed(texts)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(wordllama.embed_question, texts))
    assert np.stack(found) == pytest.approx(expected, abs=1e-6)
    assert open_embedder("wordllama") is wordllama


def test_opening_wordllama_leaves_logging_alone() -> None:
    code = (
        "import logging; from programs.embedding import open_embedder; open_embedder('wordllama');"
        "print(logging.getLogger().level, logging.getLogger().handlers)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"{logging.WARNING} []"


@pytest.mark.parametrize("name", ["word2vec", "/model", "openai/"])
def test_unknown_names_are_explained(name: str) -> None:
    for call in (open_embedder, embedder_identity):
        with pytest.raises(RagwrightError, match=f"{name!r} is unknown; choose wordllama, or provider/model"):
            call(name)


def test_the_identity_tells_endpoints_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    plain = embedder_identity("openai/model")
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:1/v1")
    assert embedder_identity("openai/model") != plain
    assert "0.4" in embedder_identity("wordllama")


# APIs


class EmbeddingServer(ThreadingHTTPServer):
    """Speaks as much of OpenAI's embeddings protocol as a client needs; a vector is (length of the text, 1)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EmbeddingHandler)
        self.batches: list[list[str]] = []
        self.status = 200


class EmbeddingHandler(BaseHTTPRequestHandler):
    server: EmbeddingServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.batches.append(request["input"])
        status = self.server.status if self.path == "/v1/embeddings" else 404
        if status == 200:
            body = {"object": "list", "model": request["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
            body["data"] = [self._row(request, number, text) for number, text in enumerate(request["input"])]
        else:
            body = {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "x", "code": "x"}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @staticmethod
    def _row(request: dict[str, object], number: int, text: str) -> dict[str, object]:
        vector: object = [float(len(text)), 1.0]
        if request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<2f", len(text), 1.0)).decode()
        return {"object": "embedding", "index": number, "embedding": vector}

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server
        server.shutdown()
        thread.join()


def test_an_api_is_asked_in_batches(server: EmbeddingServer) -> None:
    embedder = open_embedder("openai/batches")
    vectors = embedder.embed([*("x" * length for length in range(1, 301)), ""])
    assert vectors.shape == (301, 2)
    assert vectors[2] == pytest.approx(np.array([3, 1]) / 10**0.5)
    assert np.linalg.norm(vectors[:-1], axis=1) == pytest.approx(np.ones(300), abs=1e-5) and not vectors[-1].any()
    assert sum(map(len, server.batches)) == 300 and max(map(len, server.batches)) <= 128
    assert embedder.texts_embedded == 300


def test_a_refusing_api_is_explained_in_one_line_without_the_key(
    server: EmbeddingServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.status = 401
    with pytest.raises(EndpointError) as caught:
        open_embedder("openai/refused").embed(["x"])
    message = str(caught.value)
    assert "'openai/refused' failed" in message and "AuthenticationError (status 401)" in message
    assert "OPENAI_API_KEY" in message and KEY not in message and "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_an_api_that_rejects_the_request_is_no_endpoint_error(server: EmbeddingServer) -> None:
    server.status = 400
    with pytest.raises(RagwrightError, match="BadRequestError") as caught:
        open_embedder("openai/rejected").embed(["x"])
    assert not isinstance(caught.value, EndpointError)


def test_an_unknown_provider_is_explained() -> None:
    with pytest.raises(RagwrightError, match="'nosuchprovider/model' failed"):
        open_embedder("nosuchprovider/model").embed(["x"])
