from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from programs.embedding import Vectors, embedder_identity, open_embedder
from programs.errors import EndpointError, RagwrightError
from tests.embedding_server import KEY, EmbeddingServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    with serving(monkeypatch) as server:
        yield server


def lengths(vectors: Vectors) -> list[float]:
    return list(np.linalg.norm(vectors, axis=1))


def test_an_api_is_asked_in_batches_a_few_at_a_time(server: EmbeddingServer) -> None:
    server.delay_s = 0.1
    embedder = open_embedder("openai/batches")
    vectors = embedder.embed([*(f"text {number}" for number in range(1000)), ""])
    assert vectors.shape == (1001, 16)
    assert lengths(vectors[:-1]) == pytest.approx([1] * 1000, abs=1e-5) and not vectors[-1].any()
    assert len(server.texts) == 1000 and max(map(len, server.batches)) <= 128
    assert 2 <= server.most_at_once <= 4
    assert embedder.texts_embedded == 1000


def test_replies_out_of_order_are_put_in_order(server: EmbeddingServer) -> None:
    texts = [f"text {number}" for number in range(20)]
    expected = open_embedder("openai/in-order").embed(texts)
    server.reply = lambda rows: rows[::-1]
    assert open_embedder("openai/backwards").embed(texts) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "reply",
    [
        lambda rows: rows[:-1],
        lambda rows: [],
        lambda rows: None,
        lambda rows: [{**row, "embedding": [float("nan"), 1.0]} for row in rows],
        lambda rows: [{**row, "embedding": "secret"} for row in rows],
        lambda rows: [{**row, "embedding": [1.0] * (1 + number % 2)} for number, row in enumerate(rows)],
        lambda rows: [{"object": "embedding"} for _ in rows],
    ],
)
def test_replies_that_cannot_be_used_are_refused(
    server: EmbeddingServer, tmp_path: Path, reply: Callable[[list[dict[str, object]]], object]
) -> None:
    server.reply = reply
    embedder = open_embedder("openai/odd", tmp_path)
    with pytest.raises(RagwrightError, match="embedder 'openai/odd'") as error:
        embedder.embed(["a", "b", "c"])
    assert "\n" not in str(error.value) and embedder.texts_embedded == 0
    server.reply = lambda rows: rows
    assert open_embedder("openai/odd", tmp_path).embed(["a", "b", "c"]).shape == (3, 16)


def test_a_refusing_api_is_explained_in_one_line_without_the_key(
    server: EmbeddingServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.refuse = lambda texts: 401
    with pytest.raises(EndpointError) as caught:
        open_embedder("openai/refused").embed([f"text {number}" for number in range(1000)])
    message = str(caught.value)
    assert "'openai/refused' failed" in message and "AuthenticationError (status 401)" in message
    assert "OPENAI_API_KEY" in message and KEY not in message and "\n" not in message
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert len(server.batches) == 1
    assert capfd.readouterr() == ("", "")


def test_an_api_that_rejects_the_request_is_no_endpoint_error(server: EmbeddingServer) -> None:
    server.refuse = lambda texts: 400
    with pytest.raises(RagwrightError, match="BadRequestError") as caught:
        open_embedder("openai/rejected").embed(["x"])
    assert not isinstance(caught.value, EndpointError)


def test_what_was_paid_for_before_a_failure_is_kept(server: EmbeddingServer, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(1000)]
    server.refuse = lambda batch: 400 if "text 700" in batch else 200
    embedder = open_embedder("openai/half-way", tmp_path)
    with pytest.raises(RagwrightError, match="BadRequestError"):
        embedder.embed(texts)
    served = {text for batch in server.batches if "text 700" not in batch for text in batch}
    assert embedder.texts_embedded == len(served)
    server.refuse = lambda batch: 200
    server.batches.clear()
    embedder.embed(texts)
    assert len(served) >= 128 and set(server.texts) == set(texts) - served
    assert embedder.texts_embedded == 1000


def test_an_unknown_provider_is_explained() -> None:
    with pytest.raises(RagwrightError, match="'nosuchprovider/model' failed"):
        open_embedder("nosuchprovider/model").embed(["x"])


def test_the_identity_tells_endpoints_apart_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    plain = embedder_identity("openai/model")
    monkeypatch.setenv("OPENAI_API_BASE", f"http://me:{KEY}@127.0.0.1:1/v1")
    assert embedder_identity("openai/model") != plain
    assert KEY not in embedder_identity("openai/model")
    assert "0.4" in embedder_identity("wordllama")


def test_an_api_is_sent_the_prompts_once(server: EmbeddingServer, tmp_path: Path) -> None:
    embedder = open_embedder("openai/e5-base-v2", tmp_path)
    embedder.embed_questions(["harbour"])
    embedder.embed(["harbour", "harbour", ""])
    assert server.texts == ["query: harbour", "passage: harbour"]
    assert embedder.texts_embedded == 2
    embedder.embed(["query: harbour"])
    assert server.texts[2:] == ["passage: query: harbour"]


@pytest.mark.parametrize(
    ("model", "path", "question", "passage", "batch"),
    [
        ("cohere/embed-english-v3.0", "/cohere", "search_query", "search_document", 96),
        ("voyage/voyage-3.5", "/v1", "query", "document", 128),
    ],
)
def test_an_api_that_asks_what_texts_are_is_told(
    server: EmbeddingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    path: str,
    question: str,
    passage: str,
    batch: int,
) -> None:
    provider = model.partition("/")[0].upper()
    monkeypatch.setenv(f"{provider}_API_BASE", f"http://127.0.0.1:{server.server_port}{path}")
    monkeypatch.setenv(f"{provider}_API_KEY", KEY)
    embedder = open_embedder(model, tmp_path)
    embedder.embed_questions(["harbour"])
    embedder.embed(["harbour", *(f"text {number}" for number in range(200))])
    assert embedder.texts_embedded == 202
    assert server.input_types == [question, *[passage] * (len(server.batches) - 1)]
    assert max(map(len, server.batches)) == batch
