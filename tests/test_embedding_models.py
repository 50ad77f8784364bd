from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from programs import embedding
from programs.embedding import Embedder, embedder_identity, open_embedder
from programs.embedding_prompts import find_prompts
from programs.errors import MissingExtraError, RagwrightError
from tests.tiny_models import write_dense_model, write_sentence_transformer

HARBOUR = ["a ship lies in the harbour", "the ship left the harbour", "income tax law"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tiny models; tests read it only."""
    folder = tmp_path_factory.mktemp("models")
    write_dense_model(folder / "plain")
    if importlib.util.find_spec("sentence_transformers"):
        write_sentence_transformer(folder / "bert")
    return folder


# Prompts

SEARCH = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize(
    ("model", "question", "passage"),
    [
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("/models/e5-small-v2/", "query: ", "passage: "),
        ("nomic-ai/nomic-embed-text-v1.5-Q", "search_query: ", "search_document: "),
        ("ollama/nomic-embed-text:latest", "search_query: ", "search_document: "),
        ("BAAI/bge-small-en-v1.5", SEARCH, ""),
        ("BAAI/bge-m3", "", ""),
        ("snowflake/snowflake-arctic-embed-m-long", SEARCH, ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("ollama/snowflake-arctic-embed2", "query: ", ""),
        ("mixedbread-ai/mxbai-embed-large-v1", SEARCH, ""),
        ("google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
        ("openai/text-embedding-3-small", "", ""),
    ],
)
def test_prompts_follow_the_family(model: str, question: str, passage: str) -> None:
    prompts = find_prompts(model)
    assert (prompts.question, prompts.passage) == (question, passage)


def test_instructed_models_get_the_task_before_questions_only() -> None:
    for model in ("intfloat/multilingual-e5-large-instruct", "Qwen/Qwen3-Embedding-0.6B"):
        prompts = find_prompts(model)
        assert prompts.question.startswith("Instruct: ") and "\nQuery:" in prompts.question and not prompts.passage


def test_fastembed_is_sent_the_prompts_once(models: Path, tmp_path: Path) -> None:
    plain = open_embedder(f"fastembed:{models / 'plain'}")
    named = open_embedder(f"fastembed:{write_dense_model(tmp_path / 'e5-small')}")
    own = write_dense_model(tmp_path / "own")
    prompts = {"query": "ask ", "document": "say "}
    (own / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    for embedder, question, passage in (
        (named, "query: ", "passage: "),
        (open_embedder(f"fastembed:{own}"), "ask ", "say "),
    ):
        assert embedder.embed_questions(["harbour"]) == pytest.approx(plain.embed([question + "harbour"]), abs=1e-6)
        assert embedder.embed(["harbour"]) == pytest.approx(plain.embed([passage + "harbour"]), abs=1e-6)


def test_sentence_transformers_bring_their_own_prompts(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    plain = open_embedder(f"sentence-transformers:{models / 'bert'}")
    prompts = {"query": "ask ", "document": "say "}
    for folder, question, passage in (
        (write_sentence_transformer(tmp_path / "own-e5-small", prompts=prompts), "ask ", "say "),
        # Its family wants prompts, and the model itself has none.
        (write_sentence_transformer(tmp_path / "e5-small"), "query: ", "passage: "),
    ):
        embedder = open_embedder(f"sentence-transformers:{folder}")
        assert embedder.embed_questions(["harbour"]) == pytest.approx(plain.embed([question + "harbour"]), abs=1e-5)
        assert embedder.embed(["harbour"]) == pytest.approx(plain.embed([passage + "harbour"]), abs=1e-5)


# Models on this machine


def test_other_weights_are_another_embedder(tmp_path: Path) -> None:
    name = f"fastembed:{write_dense_model(tmp_path / 'model')}"
    before, identity = open_embedder(name, tmp_path / "cache").embed(HARBOUR), embedder_identity(name)
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert embedder_identity(f"fastembed:{tmp_path / 'copy'}") == identity
    write_dense_model(tmp_path / "model", seed=1)
    assert embedder_identity(name) != identity
    after = open_embedder(name, tmp_path / "cache")
    assert not np.allclose(after.embed(HARBOUR), before) and after.texts_embedded == 3


def test_what_a_folder_says_of_pooling_is_done(models: Path, tmp_path: Path) -> None:
    plain = open_embedder(f"fastembed:{models / 'plain'}").embed(HARBOUR)
    built_in = open_embedder(f"fastembed:{write_dense_model(tmp_path / 'one', pooling='built in')}").embed(HARBOUR)
    assert built_in == pytest.approx(plain, abs=1e-5)
    first_token = open_embedder(f"fastembed:{write_dense_model(tmp_path / 'two', pooling='cls')}").embed(HARBOUR)
    # The first token is the same for all texts, and has zeros here.
    assert not first_token.any()
    newer = write_dense_model(tmp_path / "three", pooling="unsaid")
    (newer / "1_Pooling").mkdir()
    (newer / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": true}')
    assert open_embedder(f"fastembed:{newer}").embed(HARBOUR) == pytest.approx(plain, abs=1e-6)


def spoil(folder: Path, file: str, content: str | None) -> None:
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.onnx", None, "has no model.onnx"),
        ("tokenizer_config.json", None, "has no tokenizer_config.json"),
        ("model.onnx", "rubbish", "cannot be loaded: "),
        ("tokenizer.json", "rubbish", "cannot be loaded: "),
        ("1_Pooling/config.json", "rubbish", "is not JSON"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "choose one of cls, mean, lasttoken"),
        ("1_Pooling/config.json", None, "write 1_Pooling/config.json"),
    ],
)
def test_folders_that_hold_no_model_are_explained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, content: str | None, message: str
) -> None:
    folder = write_dense_model(tmp_path / "model")
    spoil(folder, file, content)
    with pytest.raises(RagwrightError, match=message) as error:
        open_embedder(f"fastembed:{folder}").embed(["a harbour"])
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().out == ""


def test_a_model_that_cannot_be_fetched_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    embedder = open_embedder("fastembed:BAAI/bge-small-en-v1.5@64")
    with pytest.raises(RagwrightError, match="neither on this machine nor could it be fetched: run once"):
        embedder.embed(["a harbour"])
    assert capfd.readouterr() == ("", "")


def test_what_fastembed_does_not_know_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(RagwrightError, match="'fastembed:nobody/nothing' is neither a folder nor a model"):
        embedder_identity("fastembed:nobody/nothing")
    with pytest.raises(RagwrightError, match="first 400 components, but the model has 384"):
        embedder_identity("fastembed:BAAI/bge-small-en-v1.5@400")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragwright\[fastembed\]'"):
        open_embedder("fastembed:BAAI/bge-small-en-v1.5")
    if importlib.util.find_spec("sentence_transformers") is None:
        with pytest.raises(MissingExtraError, match=r"pip install 'ragwright\[sentence-transformers\]'"):
            open_embedder("sentence-transformers:all-MiniLM-L6-v2")


def test_a_folder_that_sentence_transformers_cannot_read_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(RagwrightError, match="the folder holds no model that this library reads") as error:
        open_embedder(f"sentence-transformers:{tmp_path}").embed(["a harbour"])
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


# Replies


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], object]], Embedder]:
    """Makes an embedder of any function from texts to rows."""

    def made(compute: Callable[[list[str]], object]) -> Embedder:
        name = f"hand-{id(compute)}"
        monkeypatch.setitem(embedding.EMBEDDERS, name, lambda: compute)
        return open_embedder(name)

    return made


@pytest.mark.parametrize(
    "rows", [[[1.0, 2.0]], [[float("nan")], [1.0]], [1.0, 2.0], [[], []], [[1.0], [1.0, 2.0]], None, [["a"], ["b"]]]
)
def test_rows_that_cannot_be_used_are_refused(by_hand: Callable[..., Embedder], rows: object) -> None:
    with pytest.raises(RagwrightError, match=r"embedder 'hand-\d+' returned"):
        by_hand(lambda texts: rows).embed(["a", "bb"])


def test_large_numbers_and_rows_of_zeros_are_fine(by_hand: Callable[..., Embedder]) -> None:
    vectors = by_hand(lambda texts: [[3e38, 3e38] if text == "large" else [0, 0] for text in texts]).embed(
        ["large", "none"]
    )
    assert vectors == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0, 0]]), abs=1e-5)


def test_rows_of_another_length_than_before_are_refused(by_hand: Callable[..., Embedder]) -> None:
    embedder = by_hand(lambda texts: [[1.0] * len(texts[0])] * len(texts))
    embedder.embed(["abc"])
    with pytest.raises(RagwrightError, match="vectors of 2 numbers, and 3 before"):
        embedder.embed(["ab"])


def test_waiting_threads_get_the_error_of_the_one_that_asked(by_hand: Callable[..., Embedder]) -> None:
    calls: list[list[str]] = []

    def fail(texts: list[str]) -> object:
        calls.append(texts)
        time.sleep(0.3)
        raise RagwrightError("out of order")

    embedder = by_hand(fail)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(embedder.embed, ["a"]) for _ in range(8)]
        assert [str(future.exception()) for future in futures] == ["out of order"] * 8
    assert len(calls) < 8
