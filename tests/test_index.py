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


def embedded() -> int:
    return embedding.open_embedder("wordllama").texts_embedded


def embedded_by(call: Callable[[], Any]) -> int:
    before = embedded()
    call()
    return embedded() - before


def folder_of(root: Path, index: Index) -> Path:
    return root / index.key


def test_a_search_finds_the_nearest_chunks(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    assert index.embedder is not None
    vectors = index.embedder.embed([chunk.text for chunk in index.chunks])
    assert index.vectors(index.chunks[::-1]) == pytest.approx(vectors[::-1], abs=1e-6)
    question = index.embedder.embed_question("Where is the lighthouse?")
    found = index.search(question, 3)
    exact = sorted(((float(row @ question), -n) for n, row in enumerate(vectors)), reverse=True)[:3]
    assert [chunk for chunk, _ in found] == [index.chunks[-n] for _, n in exact]
    assert [score for _, score in found] == pytest.approx([score for score, _ in exact], abs=1e-5)


def test_the_number_of_results_is_bounded(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    vector = index.vectors(index.chunks[:1])[0]
    assert len(index.search(vector, 10_000)) == len(index.chunks)
    assert index.search(np.zeros_like(vector), 3) == []
    for k in (0, -1):
        with pytest.raises(RagwrightError, match=f"k: at least 1 result must be asked for, got {k}"):
            index.search(vector, k)


def test_chunks_come_in_the_order_of_documents_with_titles(tmp_path: Path) -> None:
    corpus = corpus_of()
    index = open_index(tmp_path, corpus, CONFIG)
    assert [chunk.span for chunk in index.chunks] == sorted(chunk.span for chunk in index.chunks)
    for chunk in index.chunks:
        document = corpus.document(chunk.span.doc_id)
        assert chunk.text == document.text[chunk.span.start : chunk.span.end] and chunk.title == document.title


def test_a_second_opening_embeds_nothing(tmp_path: Path) -> None:
    first = open_index(tmp_path, corpus_of(), CONFIG)
    chunks, question = first.chunks, first.vectors(first.chunks[:1])[0]
    found = first.search(question, 4)
    assert open_index(tmp_path, corpus_of(), CONFIG) is first
    del first
    gc.collect()
    before = embedded()
    again = open_index(tmp_path, corpus_of(), replace(CONFIG, retriever="hybrid", top_k=1))
    assert again.chunks == chunks and again.search(question, 4) == found
    assert embedded() == before


def test_another_process_reads_the_same_index(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_index import *
        index = open_index(Path({str(tmp_path)!r}), corpus_of(), CONFIG)
        print(embedded(), len(index.search(index.vectors(index.chunks[:1])[0], 1000)))
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
    assert embedded_by(lambda: open_index(tmp_path, corpus_of(), config)) == 0
    index = open_index(tmp_path, corpus_of(), config)
    assert index.embedder is None and not (folder_of(tmp_path, index) / "chroma.sqlite3").exists()
    assert index.sparse.scores("anchor").any()
    for call in (lambda: index.search(np.ones(3, np.float32), 1), lambda: index.vectors(index.chunks)):
        with pytest.raises(RagwrightError, match="embedder: 'none' makes no vectors"):
            call()


@pytest.mark.parametrize("harm", ["no meta", "bad meta", "incomplete", "no chunks"])
def test_an_incomplete_index_is_built_again(tmp_path: Path, harm: str) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    folder, chunks = folder_of(tmp_path, index), index.chunks
    meta = folder / "meta.json"
    if harm == "no meta":
        meta.unlink()
    elif harm == "bad meta":
        meta.write_text('{"status": "compl')
    elif harm == "incomplete":
        meta.write_text(json.dumps({"status": "building"}))
    else:
        (folder / "chunks.jsonl").unlink()
    # Once while the old one is still in use, as after `ragwright clean` in the same process.
    assert embedded_by(lambda: open_index(tmp_path, corpus_of(), CONFIG)) == len(chunks)
    again = open_index(tmp_path, corpus_of(), CONFIG)
    assert again is not index
    assert len(again.search(again.vectors(chunks[:1])[0], 100)) == len(chunks)
    assert json.loads(meta.read_text())["status"] == "complete"


def test_what_a_killed_builder_left_is_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / f".{index_key(corpus_of(), CONFIG)}.building"
    leftover.mkdir()
    (leftover / "chroma.sqlite3").write_text("half")
    assert open_index(tmp_path, corpus_of(), CONFIG).chunks
    assert not leftover.exists()


def test_a_failing_embedder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(texts: list[str]) -> list[list[float]]:
        raise RagwrightError("the endpoint is down")

    monkeypatch.setitem(embedding.EMBEDDERS, "failing", lambda: fail)
    with pytest.raises(RagwrightError, match="endpoint is down"):
        open_index(tmp_path, corpus_of(), replace(CONFIG, embedder="failing"))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    key = open_index(tmp_path, corpus_of(), CONFIG).key
    gc.collect()
    lines = (tmp_path / key / "chunks.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / key / "chunks.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(RagwrightError, match=f"{key}: the index has .* delete this folder"):
        open_index(tmp_path, corpus_of(), CONFIG)


def test_threads_that_open_at_once_build_once(tmp_path: Path) -> None:
    size = len(open_index(tmp_path / "other", corpus_of(30), CONFIG).chunks)
    before = embedded()
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: open_index(tmp_path / "root", corpus_of(30), CONFIG), range(6)))
    assert len({id(index) for index in opened}) == 1
    assert embedded() - before == size


def test_processes_that_open_at_once_build_once(tmp_path: Path) -> None:
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_index import *
        index = open_index(Path({str(tmp_path)!r}), corpus_of(30), CONFIG)
        print(embedded(), len(index.search(index.vectors(index.chunks[:1])[0], 1000)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=120)[0].split() for process in running)
    size = outputs[0][1]
    assert outputs == [["0", size], [size, size]]


def test_threads_search_one_index(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(60), CONFIG)
    vectors = index.vectors(index.chunks)
    expected = [index.search(vector, 5) for vector in vectors]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda vector: index.search(vector, 5), vectors)) == expected


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
    builds = [open_index(tmp_path / str(build), corpus, config) for build in range(2)]
    one, other = ([[c.id for c, _ in index.search(q, 10)] for q in questions] for index in builds)
    assert one == other


def test_an_index_is_shared_by_copies(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    assert copy.deepcopy({"index": index})["index"] is index


def test_a_closed_index_is_opened_anew(tmp_path: Path) -> None:
    index = open_index(tmp_path, corpus_of(), CONFIG)
    index.close()
    index.close()
    assert index.closed
    again = open_index(tmp_path, corpus_of(), CONFIG)
    assert len(again.vectors(again.chunks)) == len(index.chunks)
    again.close()
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splitter": "magic"}, "'magic' is unknown; choose one of recursive, sentence, markdown"),
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
