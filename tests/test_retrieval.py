from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.index import Index, open_index
from programs.retrieval import RETRIEVERS
from programs.sparse import SparseIndex, terms
from programs.types import Document

TEXTS = {
    "a": "The harbour was built in 1871 and widened in 1902.",
    "b": "Ships anchor in the bay when the harbour is full.",
    "c": "Bread is baked before dawn in the old town.",
    "d": "東京は日本の首都です。",
    "e": "Bread is baked before dawn in the old town.",
    "f": "The invoice number is ZX-4431.",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    corpus = Corpus.from_documents(Document(doc_id, text) for doc_id, text in TEXTS.items())
    opened = open_index(tmp_path_factory.mktemp("indexes"), corpus, PipelineConfig(chunk_size=64))
    yield opened
    opened.close()


def ids(index: Index, retriever: str, question: str, k: int = 10) -> list[str]:
    return [passage.span.doc_id for passage in RETRIEVERS[retriever](index).retrieve(question, k)]


@pytest.mark.parametrize("retriever", RETRIEVERS)
@pytest.mark.parametrize(
    "question", ["When was the harbour built?", "日本の首都", "🦛", "zx-4431", "the of and", "", " \n"]
)
def test_every_retriever_keeps_the_contract(index: Index, retriever: str, question: str) -> None:
    found = RETRIEVERS[retriever](index).retrieve(question, 4)
    assert len(found) <= 4 and len({passage.chunk.id for passage in found}) == len(found)
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)
    assert all(passage.chunk in index.chunks for passage in found)
    assert RETRIEVERS[retriever](index).retrieve(question, 4) == found
    assert RETRIEVERS[retriever](index).retrieve(question, 2) == found[:2]
    assert len(RETRIEVERS[retriever](index).retrieve(question, 1000)) <= len(index.chunks)


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_no_results_cannot_be_asked_for(index: Index, retriever: str) -> None:
    with pytest.raises(RagwrightError, match="k: at least 1"):
        RETRIEVERS[retriever](index).retrieve("harbour", 0)


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_equal_scores_come_in_the_order_of_chunks(index: Index, retriever: str) -> None:
    assert ids(index, retriever, "When is bread baked in the town?", 2) == ["c", "e"]


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_threads_retrieve_the_same(index: Index, retriever: str) -> None:
    retrieve = RETRIEVERS[retriever](index).retrieve
    questions = [f"{text} {number}" for number in range(5) for text in TEXTS.values()]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda q: retrieve(q, 3), questions)) == [retrieve(q, 3) for q in questions]


def test_dense_finds_meaning_and_sparse_finds_words(index: Index) -> None:
    assert ids(index, "dense", "vessels at sea", 1) == ["b"]
    assert ids(index, "sparse", "vessels at sea") == []
    assert ids(index, "sparse", "zx 4431?") == ["f"]


def test_sparse_leaves_out_what_shares_no_term(index: Index) -> None:
    assert sorted(ids(index, "sparse", "Where is the harbour?")) == ["a", "b"]


def test_sparse_finds_parts_of_unsegmented_text(index: Index) -> None:
    assert ids(index, "sparse", "首都はどこですか") == ["d"]


def test_hybrid_sums_the_reciprocals_of_ranks(index: Index) -> None:
    question = "Where do ships anchor near the harbour?"
    expected: dict[str, float] = {}
    for retriever in ("dense", "sparse"):
        for rank, doc_id in enumerate(ids(index, retriever, question), start=1):
            expected[doc_id] = expected.get(doc_id, 0) + 1 / (60 + rank)
    found = RETRIEVERS["hybrid"](index).retrieve(question, 10)
    assert {passage.span.doc_id: passage.score for passage in found} == pytest.approx(expected)


def test_without_an_embedder_only_sparse_works(tmp_path: Path) -> None:
    corpus = Corpus.from_documents([Document("a", "The harbour.")])
    bare = open_index(tmp_path, corpus, PipelineConfig(retriever="sparse"))
    assert ids(bare, "sparse", "harbour") == ["a"]
    for retriever in ("dense", "hybrid"):
        with pytest.raises(RagwrightError, match="the embedder is 'none'"):
            RETRIEVERS[retriever](bare)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Harbour's tides, in 1871!", ["harbour", "tides", "1871"]),
        ("東京タワー and ＡＢＣ", ["東京", "京タ", "タワ", "ワー", "abc"]),
        ("木", ["木"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_bm25_agrees_with_its_formula() -> None:
    texts = ["red fish blue fish", "red bird", "green"]
    sparse = SparseIndex(texts)
    assert sparse.idf("green") == sparse.idf("blue") > sparse.idf("red") > 0
    assert sparse.idf("unseen") > sparse.idf("green")
    k1, b, mean = 1.5, 0.75, 7 / 3
    expected = sparse.idf("fish") * 2 / (2 + k1 * (1 - b + b * 4 / mean))
    assert sparse.scores("fish?").tolist() == pytest.approx([expected, 0, 0], rel=1e-5)


@pytest.mark.parametrize("texts", [["the", "of"], ["!", "?"]])
def test_bm25_over_texts_without_terms_finds_nothing(texts: list[str]) -> None:
    assert SparseIndex(texts).scores("the harbour").tolist() == [0, 0]
