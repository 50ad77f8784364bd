from __future__ import annotations

import copy
import gc
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from programs import embedding
from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.index import Index, index_key, open_index
from programs.types import Document

CONFIG = PipelineConfig(chunk_size=16)
WORDS = ["harbour", "ship", "quay", "crane", "anchor", "tide", "lighthouse", "sail", "rope", "storm", "cargo", "map"]


def corpus_of(count: int = 6) -> Corpus:
    texts = (f"{WORDS[n % 12]} {n}. " + " ".join(WORDS[n % 5 :]) for n in range(count))
    return Corpus.from_documents(Document(f"doc-{n:03}.md", text, f"Title {n}") for n, text in enumerate(texts))


def embedded(runs: Path) -> int:
    return embedding.open_embedder("wordllama", runs.resolve() / "cache").texts_embedded


def embedded_by(runs: Path, call: Callable[[], Any]) -> int:
    before = embedded(runs)
    call()
    return embedded(runs) - before


def distinct_texts(index: Index) -> int:
    return len({chunk.text for chunk in index.chunks})


def everything(index: Index) -> np.ndarray:
    return index.vectors_of(np.arange(len(index.chunks)))


def pairs(index: Index, vectors: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    return [list(zip(r.positions.tolist(), r.scores.tolist(), strict=True)) for r in index.nearest(vectors, k)]


@pytest.mark.parametrize("served", [False, True])
def test_a_search_finds_the_nearest_chunks(tmp_path: Path, served: bool) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG, served=served)
    assert index.embedder is not None and index.served == served
    vectors = index.embedder.embed([chunk.text for chunk in index.chunks])
    assert index.vectors_of(np.array([2, 0])) == pytest.approx(vectors[[2, 0]], abs=1e-6)
    questions = index.embedder.embed_questions(["Where is the lighthouse?", "Which cargo?"])
    for question, found in zip(questions, pairs(index, questions, 3), strict=True):
        exact = sorted(((float(row @ question), -n) for n, row in enumerate(vectors)), reverse=True)[:3]
        assert [position for position, _ in found] == [-n for _, n in exact]
        assert [score for _, score in found] == pytest.approx([score for score, _ in exact], abs=1e-5)


@pytest.mark.parametrize("served", [False, True])
def test_the_number_of_results_is_bounded(tmp_path: Path, served: bool) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG, served=served)
    vectors = np.array([everything(index)[0], np.zeros(256)], dtype=np.float32)
    found, nothing = index.nearest(vectors, 10_000)
    assert len(found) == len(index.chunks) and len(nothing) == 0
    for k in (0, -1):
        with pytest.raises(RagwrightError, match=f"k: at least 1 result must be asked for, got {k}"):
            index.nearest(vectors, k)


def test_a_mask_leaves_the_others_out(tmp_path: Path) -> None:
    for served in (False, True):
        index = open_index(tmp_path, corpus_of(), CONFIG, served=served)
        mask = np.arange(len(index.chunks)) % 2 == 1
        found = index.nearest(everything(index)[:1], 100, mask)[0]
        assert sorted(found.positions) == mask.nonzero()[0].tolist()


def test_chunks_come_in_the_order_of_documents_with_titles(tmp_path: Path) -> None:
    corpus = corpus_of()
    index = open_index(tmp_path, corpus, CONFIG)
    assert [chunk.span for chunk in index.chunks] == sorted(chunk.span for chunk in index.chunks)
    for chunk in index.chunks:
        document = corpus.document(chunk.span.doc_id)
        assert chunk.text == document.text[chunk.span.start : chunk.span.end] and chunk.title == document.title


def test_a_second_opening_embeds_nothing(tmp_path: Path) -> None:
    first = open_index(tmp_path, corpus_of(), CONFIG)
    chunks, question = first.chunks, everything(first)[:1]
    found = pairs(first, question, 4)
    assert open_index(tmp_path, corpus_of(), CONFIG) is first
    del first
    gc.collect()
    before = embedded(tmp_path)
    again = open_index(tmp_path, corpus_of(), replace(CONFIG, retriever="hybrid", top_k=1))
    assert again.chunks == chunks and pairs(again, question, 4) == found
    assert embedded(tmp_path) == before


def test_another_process_reads_the_same_index(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_index import *
        index = open_index(Path({str(tmp_path)!r}), corpus_of(), CONFIG)
        print(embedded(Path({str(tmp_path)!r})), len(index.nearest(everything(index)[:1], 1000)[0]))
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["0", str(len(index.chunks))]
    assert out.stderr == ""


def test_what_is_shared_and_what_is_not() -> None:
    corpus, base = corpus_of(), index_key(corpus_of(), CONFIG)
    same: list[dict[str, Any]] = [{"top_k": 9}, {"reranker": "mmr"}, {"retriever": "hybrid"}, {"prompt_format": "json"}]
    assert {index_key(corpus, replace(CONFIG, **changes)) for changes in same} == {base}
    other: list[dict[str, Any]] = [
        {"splitter": "sentence"},
        {"chunk_size": 17},
        {"chunk_overlap": 0.1},
        {"embedder": "openai/a"},
        {"retriever": "sparse"},
    ]
    keys = {index_key(corpus, replace(CONFIG, **changes)) for changes in other} | {index_key(corpus_of(5), CONFIG)}
    assert len(keys | {base}) == 7


def test_sparse_retrieval_needs_no_vectors(tmp_path: Path) -> None:
    config = replace(CONFIG, retriever="sparse")
    assert embedded_by(tmp_path, lambda: open_index(tmp_path, corpus_of(), config)) == 0
    index = open_index(tmp_path, corpus_of(), config)
    assert index.embedder is None and not list(index.folder.glob("vectors-*"))
    assert any(len(found) for found, _ in index.sparse.scores(["anchor"]))
    for call in (lambda: index.nearest(np.ones((1, 3), np.float32), 1), lambda: everything(index)):
        with pytest.raises(RagwrightError, match="embedder: 'none' makes no vectors"):
            call()


@pytest.mark.parametrize("harm", ["no meta", "bad meta", "incomplete", "no chunks"])
def test_an_incomplete_index_is_built_again(tmp_path: Path, harm: str) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    folder, chunks = index.folder, index.chunks
    meta = folder / "meta.json"
    if harm == "no meta":
        meta.unlink()
    elif harm == "bad meta":
        meta.write_text('{"status": "compl')
    elif harm == "incomplete":
        meta.write_text(json.dumps({"status": "building"}))
    else:
        (folder / "chunks.jsonl").unlink()
    # While the old one is still in use, as after `ragwright clean` in the same process.
    again = open_index(tmp_path, corpus_of(), CONFIG)
    assert again is not index
    assert len(again.nearest(everything(again)[:1], 100)[0]) == len(chunks)
    assert json.loads(meta.read_text())["status"] == "complete"


def test_what_a_killed_builder_left_is_cleared(tmp_path: Path) -> None:
    folder = open_index(tmp_path / "other", corpus_of(), CONFIG, served=True).folder
    store = next(folder.glob("chroma-*")).name
    for leftover in (f".{folder.name}.building", f"{folder.name}/.{store}.building"):
        (tmp_path / "indexes" / leftover).mkdir(parents=True)
        (tmp_path / "indexes" / leftover / "chroma.sqlite3").write_text("half")
    index = open_index(tmp_path, corpus_of(), CONFIG, served=True)
    assert len(index.nearest(everything(index)[:1], 100)[0]) == len(index.chunks)
    assert not list((tmp_path / "indexes").rglob("*.building"))


def test_half_a_store_is_built_again(tmp_path: Path) -> None:
    folder = open_index(tmp_path, corpus_of(), CONFIG, served=True).folder
    gc.collect()
    store = next(folder.glob("chroma-*"))
    (store / "meta.json").unlink()
    index = open_index(tmp_path, corpus_of(), CONFIG, served=True)
    assert len(index.nearest(everything(index)[:1], 100)[0]) == len(index.chunks)


def test_a_failing_embedder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(texts: list[str]) -> list[list[float]]:
        raise RagwrightError("the endpoint is down")

    monkeypatch.setitem(embedding.EMBEDDERS, "failing", lambda: fail)
    with pytest.raises(RagwrightError, match="endpoint is down"):
        open_index(tmp_path, corpus_of(), replace(CONFIG, embedder="failing"))
    assert not list(tmp_path.rglob("*vectors-*")) and not list(tmp_path.rglob("*.building"))


@pytest.mark.parametrize("served", [False, True])
def test_a_damaged_index_is_named(tmp_path: Path, served: bool) -> None:
    folder = open_index(tmp_path, corpus_of(), CONFIG, served=served).folder
    gc.collect()
    lines = (folder / "chunks.jsonl").read_text().splitlines(keepends=True)
    (folder / "chunks.jsonl").write_text("".join(lines[:-1]).rstrip())
    with pytest.raises(RagwrightError, match=f"has {len(lines)} vectors for {len(lines) - 1}.* delete"):
        everything(open_index(tmp_path, corpus_of(), CONFIG, served=served))


def test_vectors_that_are_no_vectors_are_named(tmp_path: Path) -> None:
    folder = open_index(tmp_path, corpus_of(), CONFIG).folder
    gc.collect()
    next(folder.glob("vectors-*")).write_bytes(b"half a f")
    with pytest.raises(RagwrightError, match=r"the vectors are damaged .* delete this file"):
        everything(open_index(tmp_path, corpus_of(), CONFIG))


def test_a_changed_document_embeds_only_itself(tmp_path: Path) -> None:
    documents = list(corpus_of(8).documents)
    open_index(tmp_path, Corpus.from_documents(documents), CONFIG)
    changed = replace(documents[3], text="The mayor of Marrow keeps two herons.")
    added = Document("new.md", "A bell was cast for the chapel.")
    for now, expected in (
        ([*documents[:3], changed, *documents[4:]], 1),
        ([*documents, added], 1),
        (documents[:-1], 0),
    ):
        corpus = Corpus.from_documents(now)
        assert embedded_by(tmp_path, lambda corpus=corpus: open_index(tmp_path, corpus, CONFIG)) == expected


def test_threads_that_open_at_once_build_once(tmp_path: Path) -> None:
    size = distinct_texts(open_index(tmp_path / "other", corpus_of(30), CONFIG))
    before = embedded(tmp_path / "root")
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: open_index(tmp_path / "root", corpus_of(30), CONFIG), range(6)))
    assert len({id(index) for index in opened}) == 1
    assert embedded(tmp_path / "root") - before == size


def test_processes_that_open_at_once_build_once(tmp_path: Path) -> None:
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_index import *
        index = open_index(Path({str(tmp_path)!r}), corpus_of(30), CONFIG)
        print(embedded(Path({str(tmp_path)!r})), len(index.nearest(everything(index)[:1], 1000)[0]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=120)[0].split() for process in running)
    index = open_index(tmp_path, corpus_of(30), CONFIG)
    size = str(len(index.chunks))
    assert outputs == [["0", size], [str(distinct_texts(index)), size]]


@pytest.mark.parametrize("served", [False, True])
def test_threads_search_one_index(tmp_path: Path, served: bool) -> None:
    index = open_index(tmp_path, corpus_of(60), CONFIG, served=served)
    vectors = everything(index)[:, None]
    expected = [pairs(index, vector, 5) for vector in vectors]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda vector: pairs(index, vector, 5), vectors)) == expected


def test_progress_is_reported(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    index = open_index(tmp_path, corpus_of(), CONFIG, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(index.chunks), len(index.chunks))


def test_neighbours_do_not_change_from_one_build_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    table = generator.standard_normal((400, 32))
    monkeypatch.setitem(embedding.EMBEDDERS, "random", lambda: lambda texts: table[[int(t.split()[1]) for t in texts]])
    corpus = Corpus.from_documents(Document(f"{n:03}", f"number {n}") for n in range(400))
    config = replace(CONFIG, embedder="random")
    questions = generator.standard_normal((20, 32)).astype(np.float32)
    exact = pairs(open_index(tmp_path / "exact", corpus, config), questions, 10)
    for build in range(2):
        served = open_index(tmp_path / str(build), corpus, config, served=True)
        assert [[n for n, _ in found] for found in pairs(served, questions, 10)] == [[n for n, _ in f] for f in exact]


def test_an_index_is_shared_by_copies(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    assert copy.deepcopy({"index": index})["index"] is index


def test_a_closed_index_is_opened_anew(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG, served=True)
    index.close()
    index.close()
    assert index.closed
    again = open_index(tmp_path, corpus_of(), CONFIG, served=True)
    assert len(again.nearest(everything(again)[:1], 100)[0]) == len(index.chunks)
    again.close()
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splitter": "magic"}, "'magic' is unknown; choose one of "),
        ({"embedder": "magic"}, "'magic' is unknown; choose wordllama"),
        ({"chunk_size": 0}, "chunk_size: 0"),
    ],
)
def test_unknown_settings_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RagwrightError, match=message):
        open_index(tmp_path / "root", corpus_of(), replace(CONFIG, **changes))
    assert not (tmp_path / "root").exists()
