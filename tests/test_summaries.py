from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.index import index_key, open_index
from programs.lm import open_lm, parse_lm
from programs.summaries import open_summarizer, summarizer_identity
from programs.types import Document
from tests.openai_server import OpenAIServer

SENTENCE = "The harbour was built in 1871 and ships anchor there. "
CORPUS = Corpus.from_documents([Document("long", SENTENCE * 150, "Marrow"), Document("short", "A bell.", "Bell")])
CONFIG = PipelineConfig(chunk_size=64, retriever="sparse", context_prefix="summary")


def test_a_summary_stands_before_every_chunk_and_is_written_once_a_window(tmp_path: Path) -> None:
    with OpenAIServer(answer=lambda body: "About the pier\nof Marrow.") as server:
        spec = parse_lm({"model": "openai/writer", "api_base": server.url, "threads": 2})
        summarizer = open_summarizer(open_lm(spec), spec)
        index = open_index(tmp_path, CORPUS, CONFIG, summarizer=summarizer)
        asked = len(server.requests)
        assert open_index(tmp_path, CORPUS, CONFIG, summarizer=summarizer).chunks == index.chunks
        assert len(server.requests) == asked
    assert all(text.startswith("About the pier") for text in index.texts)
    assert all(chunk.text in text for chunk, text in zip(index.chunks, index.texts, strict=True))
    # The long document has more than one window of 1,024 tokens and far more chunks.
    assert 3 <= asked < len(index.chunks) / 2
    ((positions, _),) = index.sparse.scores(["pier"])
    assert len(positions) == len(index.chunks)


def test_another_lm_writes_another_index() -> None:
    one, other = (parse_lm({"model": f"openai/{name}", "api_base": "http://127.0.0.1:1"}) for name in ("a", "b"))
    keys = {index_key(CORPUS, CONFIG, summarizer_identity(spec)) for spec in (one, other)}
    assert len(keys) == 2
    plain = replace(CONFIG, context_prefix="title")
    assert len({index_key(CORPUS, plain, summarizer_identity(spec)) for spec in (one, other)}) == 1


def test_without_an_lm_there_are_no_summaries(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match="context_prefix: summary is written by an LM, and here is none"):
        open_index(tmp_path, CORPUS, CONFIG)
