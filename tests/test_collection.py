from __future__ import annotations

import gc
import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimize.cli.scaffold import ExistingCollection, scaffold
from optimize.settings.study import load_study
from programs.collection import read_collection
from programs.config import PipelineConfig
from programs.corpus import load_corpus
from programs.embedding import open_embedder
from programs.errors import RagwrightError
from programs.search import open_search
from programs.vector_store import close_client, open_client

TEXTS = [
    "The harbour of Marrow was built in 1871.",
    "The lighthouse keeper is called Ada Fenn.",
    "Bread is baked before dawn in the old town.",
    "The ferry to Hale leaves at noon.",
]


def fill(client: Any, name: str = "docs") -> None:
    collection = client.create_collection(name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    collection.add(
        ids=[f"rec-{number}" for number in range(len(TEXTS) + 1)],
        documents=[*TEXTS, " "],
        embeddings=open_embedder("wordllama").embed([*TEXTS, "blank"]) * 3.0,
        metadatas=[{"title": f"Record {number}", "year": 1900 + number} for number in range(len(TEXTS) + 1)],
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    client = open_client(folder)
    fill(client)
    close_client(client)
    return folder


def digest(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_local_collection_is_read_and_not_touched(store: Path) -> None:
    before = digest(store)
    found = read_collection(f"{store}::docs")
    assert [document.text for document in found.documents] == TEXTS and found.without_text == 1
    assert found.documents[1].title == "Record 1" and found.documents[1].metadata["year"] == 1901
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(np.full(4, 3.0), rel=1e-5)
    assert digest(store) == before


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chroma = Path(sys.executable).parent / "chroma"
    command = [str(chroma), "run", "--path", str(tmp_path / "served"), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


# Chroma leaves the connections of its HTTP client to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_served_collection_is_read(server: str) -> None:
    import chromadb
    from chromadb.config import Settings

    host, port = server.removeprefix("http://").split(":")
    client = chromadb.HttpClient(host, int(port), settings=Settings(anonymized_telemetry=False))
    fill(client)
    close_client(client)
    found = read_collection(f"{server}::docs")
    assert [document.text for document in found.documents] == TEXTS
    with pytest.raises(RagwrightError, match="no collection 'other'; there: docs"):
        read_collection(f"{server}::other")
    del client
    gc.collect()


def test_a_study_over_a_collection_uses_its_vectors(store: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    asked = {"Who keeps the lighthouse?": "Ada Fenn", "When was the harbour built?": "1871", "When ferry?": "noon"}
    questions.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in asked.items()))
    folder = tmp_path / "mine"
    lines = scaffold(folder, ExistingCollection(f"{store}::docs", "wordllama"), questions, seed=0)
    assert "4 records with vectors of 256 numbers, 1 records without text left out" in lines[0]
    study = load_study(folder / "study.yaml")
    assert study.space.splitter == ["whole"] and study.baseline.splitter == "whole"
    corpus = load_corpus(folder / "datasets" / "mine" / "corpus.jsonl")
    before = open_embedder("wordllama", tmp_path / "runs" / "cache").texts_embedded
    search = open_search(tmp_path / "runs", corpus, PipelineConfig(splitter="whole", top_k=1))
    assert search.index.embedder is not None and search.index.embedder.texts_embedded == before
    assert [passage.text for passage in search("Who is the keeper of the lighthouse?")] == [TEXTS[1]]
    dated = PipelineConfig(splitter="whole", top_k=4, filter="year>=1902")
    assert {p.text for p in open_search(tmp_path / "runs", corpus, dated)("harbour")} == set(TEXTS[2:])


def test_another_embedder_is_not_believed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from programs import embedding

    rng = np.random.default_rng(0)
    monkeypatch.setitem(embedding.EMBEDDERS, "other", lambda: lambda texts: rng.standard_normal((len(texts), 256)))
    monkeypatch.setitem(embedding.EMBEDDERS, "short", lambda: lambda texts: np.ones((len(texts), 8)))
    refused = {"other": "are not those of 'other'", "short": "have 256 numbers and those of 'short' have 8"}
    for name, message in refused.items():
        with pytest.raises(RagwrightError, match=message):
            scaffold(tmp_path / "mine", ExistingCollection(f"{store}::docs", name), None, seed=0)
        assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("store", "name a collection as FOLDER::NAME"),
        ("nowhere::docs", "no Chroma store"),
        ("http://127.0.0.1:9::docs", "no Chroma server answers there"),
    ],
)
def test_what_is_no_collection_is_named(source: str, message: str) -> None:
    with pytest.raises(RagwrightError, match=message):
        read_collection(source)


@pytest.mark.parametrize(
    ("about", "vectors", "message"),
    [
        ('{"embedder": "wordllama"}', np.ones((3, 4)), r"has the shape \(3, 4\); needed is one row for each of 2"),
        ('{"embedder": "wordllama"}', b"no array", "no NumPy array"),
        ("{}", np.ones((2, 4)), 'must say {"embedder"'),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(tmp_path: Path, about: str, vectors: Any, message: str) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "b", "text": "x"}\n{"id": "a", "text": "y"}\n')
    (tmp_path / "vectors.json").write_text(about)
    if isinstance(vectors, bytes):
        (tmp_path / "vectors.npy").write_bytes(vectors)
    else:
        np.save(tmp_path / "vectors.npy", vectors)
    with pytest.raises(RagwrightError, match=message):
        load_corpus(tmp_path / "corpus.jsonl")


def test_brought_vectors_belong_to_their_lines(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "b", "text": "x"}\n{"id": "a", "text": "y"}\n')
    (tmp_path / "vectors.json").write_text('{"embedder": "wordllama"}')
    np.save(tmp_path / "vectors.npy", np.array([[0.0, 2.0], [3.0, 0.0]], dtype=np.float32))
    corpus = load_corpus(tmp_path / "corpus.jsonl")
    assert corpus.brought is not None
    assert corpus.brought.of(["a", "b"]).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    other = corpus.fingerprint
    np.save(tmp_path / "vectors.npy", np.array([[0.0, 2.0], [3.0, 1.0]], dtype=np.float32))
    assert load_corpus(tmp_path / "corpus.jsonl").fingerprint != other
