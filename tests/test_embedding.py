from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from programs.embedding import Vectors, embedder_identity, open_embedder
from programs.errors import RagwrightError
from tests.embedding_server import EmbeddingServer, serving
from tests.tiny_models import write_dense_model, write_sentence_transformer

KINDS = ("wordllama", "fastembed", "sentence-transformers", "api")
HARBOUR = ["a ship lies in the harbour", "the ship left the harbour", "income tax law"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tiny models; tests read it only."""
    folder = tmp_path_factory.mktemp("models")
    write_dense_model(folder / "plain")
    if importlib.util.find_spec("sentence_transformers"):
        write_sentence_transformer(folder / "bert")
    return folder


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest, models: Path) -> str:
    """The name of one embedder of each kind: what follows must hold for all of them."""
    if request.param == "api":
        request.getfixturevalue("server")
        return "openai/words"
    if request.param == "sentence-transformers":
        pytest.importorskip("sentence_transformers")
        return f"sentence-transformers:{models / 'bert'}"
    return f"fastembed:{models / 'plain'}" if request.param == "fastembed" else "wordllama"


def lengths(vectors: Vectors) -> list[float]:
    return list(np.linalg.norm(vectors, axis=1))


def test_rows_have_length_one_and_blank_texts_give_zeros(name: str) -> None:
    for embed in (open_embedder(name).embed, open_embedder(name).embed_questions):
        vectors = embed(["a harbour", "", "the quay", " \n"])
        assert vectors.dtype == np.float32 and vectors.shape[0] == 4
        assert lengths(vectors) == pytest.approx([1, 0, 1, 0], abs=1e-5)


def test_nothing_and_blanks_alone_keep_the_dimensions(name: str) -> None:
    embedder = open_embedder(name)
    dimensions = embedder.embed(["a harbour"]).shape[1]
    for embed in (embedder.embed, embedder.embed_questions):
        assert embed([]).shape == (0, dimensions)
        assert not embed([""]).any() and embed([""]).shape == (1, dimensions)


def test_blanks_alone_are_enough_to_find_the_dimensions(name: str, tmp_path: Path) -> None:
    dimensions = open_embedder(name).embed(["a harbour"]).shape[1]
    assert open_embedder(name, tmp_path).embed([" "]).shape == (1, dimensions)


def test_near_texts_are_near(name: str) -> None:
    near, also, far = open_embedder(name).embed(HARBOUR)
    assert near @ also > near @ far


def test_a_text_embeds_the_same_alone_and_in_any_batch_and_order(name: str) -> None:
    texts = [" ".join(["text", *map(str, range(number))]) for number in range(70)]
    order = np.random.default_rng(0).permutation(len(texts))
    vectors = open_embedder(name).embed(texts)
    assert open_embedder(name).embed([texts[position] for position in order]) == pytest.approx(vectors[order], abs=1e-5)
    assert open_embedder(name).embed(texts[40:41]) == pytest.approx(vectors[40:41], abs=1e-5)


def test_a_text_is_computed_once_within_a_batch(name: str) -> None:
    embedder = open_embedder(name)
    before = embedder.texts_embedded
    vectors = embedder.embed(["a", "b", "a", "", "b", "a"])
    assert embedder.texts_embedded - before == 2
    assert np.array_equal(vectors[[0, 1]], vectors[[2, 4]]) and not np.array_equal(vectors[0], vectors[1])


def test_questions_come_from_memory_when_asked_again(name: str) -> None:
    embedder = open_embedder(name)
    first = embedder.embed_questions(["where is the ship?", "who pays tax?"])
    before = embedder.texts_embedded
    again = embedder.embed_questions(["who pays tax?", "where is the ship?", "who pays tax?"])
    assert embedder.texts_embedded == before
    assert np.array_equal(again, first[[1, 0, 1]])
    again[:] = 0
    assert np.array_equal(embedder.embed_questions(["who pays tax?"]), first[1:])


def test_what_is_kept_is_not_computed_again(name: str, tmp_path: Path) -> None:
    first = open_embedder(name, tmp_path / "a")
    vectors, questions = first.embed(HARBOUR), first.embed_questions(["where is the ship?"])
    computed = first.texts_embedded
    assert computed == 4
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = open_embedder(name, tmp_path / "b")
    assert np.array_equal(second.embed(HARBOUR[::-1]), vectors[::-1])
    assert np.array_equal(second.embed_questions(["where is the ship?"]), questions)
    assert second.texts_embedded == 0
    second.embed([*HARBOUR, "something new"])
    assert second.texts_embedded == 1


def test_threads_that_ask_at_once_have_each_text_computed_once(name: str, tmp_path: Path) -> None:
    embedder = open_embedder(name, tmp_path)
    texts = [f"passage {number} of many" for number in range(60)]
    orders = [np.random.default_rng(seed).permutation(len(texts)) for seed in range(16)]

    def work(order: np.ndarray) -> Vectors:
        return embedder.embed([texts[position] for position in order])

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, orders))
    assert embedder.texts_embedded == 60
    assert all(np.array_equal(rows, embedder.embed(texts)[order]) for rows, order in zip(found, orders, strict=True))


def test_the_first_components_alone_share_what_the_whole_computed(name: str, tmp_path: Path) -> None:
    whole = open_embedder(name, tmp_path).embed([*HARBOUR, ""])
    short = open_embedder(f"{name}@8", tmp_path)
    vectors = short.embed([*HARBOUR, ""])
    assert vectors.shape == (4, 8) and lengths(vectors) == pytest.approx([1, 1, 1, 0], abs=1e-5)
    assert vectors[:3] == pytest.approx(whole[:3, :8] / np.linalg.norm(whole[:3, :8], axis=1, keepdims=True), abs=1e-5)
    assert short.texts_embedded == 0
    assert short.embed([]).shape == (0, 8)


def test_more_components_than_there_are_get_refused(name: str) -> None:
    dimensions = open_embedder(name).embed(["x"]).shape[1]
    assert open_embedder(f"{name}@{dimensions}").embed(["x"]).shape == (1, dimensions)
    with pytest.raises(RagwrightError, match=f"asks for the first 3000 components, but the model has {dimensions}"):
        open_embedder(f"{name}@3000").embed(["x"])


def test_more_components_than_wordllama_has_are_refused_before_it_is_loaded() -> None:
    with pytest.raises(RagwrightError, match="asks for the first 300 components, but the model has 256; write @256"):
        embedder_identity("wordllama@300")


def test_one_embedder_for_each_name_and_cache(name: str, tmp_path: Path) -> None:
    embedder = open_embedder(name)
    assert embedder is open_embedder(name) and embedder is not open_embedder(name, tmp_path)
    assert embedder.name == name and embedder.identity == embedder_identity(name)
    assert embedder_identity(f"{name}@8") != embedder_identity(name)


SECOND_PROCESS = """
    import json, sys
    from pathlib import Path
    import numpy as np
    from programs.embedding import open_embedder
    for name in json.loads(sys.argv[2]):
        embedder = open_embedder(name, Path(sys.argv[1]))
        vectors = embedder.embed(json.loads(sys.argv[3]))
        print(embedder.texts_embedded, vectors.astype("<f4").tobytes().hex())
"""


def test_a_second_process_computes_nothing_and_loads_no_model(
    models: Path, server: EmbeddingServer, tmp_path: Path
) -> None:
    names = ["wordllama", f"fastembed:{models / 'plain'}", "openai/words", "openai/words@8"]
    expected = [open_embedder(name, tmp_path).embed(HARBOUR).astype("<f4").tobytes().hex() for name in names]
    asked = len(server.texts)
    command = [sys.executable, "-c", textwrap.dedent(SECOND_PROCESS), str(tmp_path), json.dumps(names)]
    done = subprocess.run([*command, json.dumps(HARBOUR)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"0 {row}" for row in expected]
    assert len(server.texts) == asked


@pytest.mark.parametrize("name", ["word2vec", "/model", "openai/", "fastembed:", "sentence-transformers:", "word@8"])
def test_unknown_names_are_explained(name: str) -> None:
    whole = name.removesuffix("@8")
    for call in (open_embedder, embedder_identity):
        with pytest.raises(RagwrightError, match=f"{whole!r} is unknown; choose wordllama, fastembed:MODEL"):
            call(name)


def test_a_version_after_an_at_sign_is_no_size() -> None:
    assert embedder_identity("vertex_ai/textembedding-gecko@003") == "vertex_ai/textembedding-gecko@003"


def test_opening_wordllama_leaves_logging_alone() -> None:
    code = (
        "import logging; from programs.embedding import open_embedder; open_embedder('wordllama').embed(['x']);"
        "print(logging.getLogger().level, logging.getLogger().handlers)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"{logging.WARNING} []"
