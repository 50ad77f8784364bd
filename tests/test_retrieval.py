from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.index import Index, open_index
from programs.ranking import Positions, Scores
from programs.retrieval import RETRIEVERS
from programs.sparse import SparseIndex
from programs.terms import CorpusTerms, terms
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
    about = {"a": {"kind": "sea", "year": 1871}, "b": {"kind": ["bay", "sea"], "year": 1902}}
    corpus = Corpus.from_documents(Document(i, text, metadata=about.get(i, {})) for i, text in TEXTS.items())
    opened = open_index(tmp_path_factory.mktemp("indexes"), corpus, PipelineConfig(chunk_size=64))
    yield opened
    opened.close()


def pairs(index: Index, retriever: str, question: str, k: int = 10, **changes: Any) -> list[tuple[int, float]]:
    config = PipelineConfig(chunk_size=64, retriever=retriever, **changes)
    (found,) = RETRIEVERS[retriever](index, config).retrieve([question], k)
    return list(zip(found.positions.tolist(), found.scores.tolist(), strict=True))


def ids(index: Index, retriever: str, question: str, k: int = 10, **changes: Any) -> list[str]:
    return [index.chunks[position].span.doc_id for position, _ in pairs(index, retriever, question, k, **changes)]


@pytest.mark.parametrize("retriever", RETRIEVERS)
@pytest.mark.parametrize(
    "question", ["When was the harbour built?", "日本の首都", "🦛", "zx-4431", "the of and", "", " \n"]
)
def test_every_retriever_keeps_the_contract(index: Index, retriever: str, question: str) -> None:
    found = pairs(index, retriever, question, 4)
    assert len(found) <= 4 and len({position for position, _ in found}) == len(found)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= position < len(index.chunks) for position, _ in found)
    assert pairs(index, retriever, question, 4) == found
    assert pairs(index, retriever, question, 2) == found[:2]
    assert len(pairs(index, retriever, question, 1000)) <= len(index.chunks)


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_a_batch_finds_what_its_questions_find_alone(index: Index, retriever: str) -> None:
    questions = [*TEXTS.values(), "", "Where do ships anchor?", "首都"]
    made = RETRIEVERS[retriever](index, PipelineConfig(chunk_size=64, retriever=retriever))
    for question, found in zip(questions, made.retrieve(questions, 4), strict=True):
        alone = pairs(index, retriever, question, 4)
        assert found.positions.tolist() == [position for position, _ in alone]
        assert found.scores.tolist() == pytest.approx([score for _, score in alone], abs=1e-6)
    assert made.retrieve([], 4) == []


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_no_results_cannot_be_asked_for(index: Index, retriever: str) -> None:
    with pytest.raises(RagwrightError, match="k: at least 1"):
        pairs(index, retriever, "harbour", 0)


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_a_filter_leaves_the_other_documents_out(index: Index, retriever: str) -> None:
    question = "harbour bay bread town"
    assert set(ids(index, retriever, question)) >= {"a", "b", "c", "e"}
    assert set(ids(index, retriever, question, filter="kind=sea")) == {"a", "b"}
    assert set(ids(index, retriever, question, filter="kind=sea, year>1900")) == {"b"}


def test_a_filter_that_fits_nothing_is_refused(index: Index) -> None:
    with pytest.raises(RagwrightError, match="'kind=moon' fits no document; the documents' keys are kind, year"):
        pairs(index, "sparse", "harbour", filter="kind=moon")


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_equal_scores_come_in_the_order_of_chunks(index: Index, retriever: str) -> None:
    assert ids(index, retriever, "When is bread baked in the town?", 2) == ["c", "e"]


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_threads_retrieve_the_same(index: Index, retriever: str) -> None:
    questions = [f"{text} {number}" for number in range(5) for text in TEXTS.values()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: pairs(index, retriever, q, 3), questions))
    assert found == [pairs(index, retriever, q, 3) for q in questions]


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
    found = pairs(index, "hybrid", question)
    assert {index.chunks[n].span.doc_id: score for n, score in found} == pytest.approx(expected)


def test_weighted_sums_scaled_scores(index: Index) -> None:
    question, weight = "Where do ships anchor near the harbour?", 0.3
    expected: dict[int, float] = {}
    for retriever, share in (("dense", weight), ("sparse", 1 - weight)):
        found = pairs(index, retriever, question, 100)
        weakest, best = found[-1][1], found[0][1]
        for position, score in found:
            expected[position] = expected.get(position, 0) + share * (score - weakest) / (best - weakest)
    assert dict(pairs(index, "weighted", question, dense_weight=weight)) == pytest.approx(expected, abs=1e-6)


def test_a_weight_of_all_or_nothing_is_one_retriever(index: Index) -> None:
    one = PipelineConfig(retriever="weighted", dense_weight=1.0).canonical()
    none = PipelineConfig(retriever="weighted", dense_weight=0.0).canonical()
    assert (one, none) == (PipelineConfig().canonical(), PipelineConfig(retriever="sparse").canonical())


def test_without_an_embedder_only_sparse_works(tmp_path: Path) -> None:
    corpus = Corpus.from_documents([Document("a", "The harbour.")])
    bare = open_index(tmp_path, corpus, PipelineConfig(retriever="sparse"))
    assert ids(bare, "sparse", "harbour") == ["a"]
    for retriever in ("dense", "hybrid", "weighted"):
        with pytest.raises(RagwrightError, match=f"{retriever} needs an embedder, but the embedder is 'none'"):
            pairs(bare, retriever, "harbour")


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


def indexed(*texts: str) -> SparseIndex:
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    found = CorpusTerms(Corpus(tuple(documents)))
    return SparseIndex.build([found.ids(d.id, 0, len(d.text)) for d in documents], found.vocabulary)


def scores(sparse: SparseIndex, question: str, size: int = 3) -> list[float]:
    return row(sparse.scores([question]), size)


def shares(sparse: SparseIndex, question: str, size: int = 3) -> list[float]:
    return row(sparse.shares([question]), size)


def row(products: Iterator[tuple[Positions, Scores]], size: int) -> list[float]:
    ((positions, values),) = products
    found = np.zeros(size)
    found[positions] = values
    return list(found)


def test_bm25_agrees_with_its_formula() -> None:
    sparse = indexed("red fish blue fish", "red bird", "green")
    assert sparse.idf("green") == sparse.idf("blue") > sparse.idf("red") > 0
    assert sparse.idf("unseen") > sparse.idf("green")
    k1, b, mean = 1.5, 0.75, 7 / 3
    expected = sparse.idf("fish") * 2 / (2 + k1 * (1 - b + b * 4 / mean))
    assert scores(sparse, "fish?") == pytest.approx([expected, 0, 0], rel=1e-5)
    assert scores(sparse, "fish, fish") == pytest.approx([2 * expected, 0, 0], rel=1e-5)


def test_shares_weigh_the_distinct_terms_of_the_question() -> None:
    sparse = indexed("red fish blue fish", "red bird", "green")
    red, fish, owl = sparse.idf("red"), sparse.idf("fish"), sparse.idf("owl")
    total = red + fish + owl
    assert shares(sparse, "Red fish, red owl?") == pytest.approx([(red + fish) / total, red / total, 0])
    assert shares(sparse, "") == [0, 0, 0]


@pytest.mark.parametrize("texts", [["the", "of"], ["!", "?"]])
def test_bm25_over_texts_without_terms_finds_nothing(texts: list[str], tmp_path: Path) -> None:
    sparse = indexed(*texts)
    sparse.save(tmp_path / "sparse")
    for index in (sparse, SparseIndex.load(tmp_path / "sparse", 2)):
        assert scores(index, "the harbour", 2) == shares(index, "the harbour", 2) == [0, 0]


def test_terms_of_a_range_are_those_of_its_text() -> None:
    text = "The Harbour's tides, in 1871! 東京タワー and ＡＢＣ of Straße"
    found = CorpusTerms(Corpus((Document("a", text),)))
    words = {number: term for term, number in found.vocabulary.items()}
    for start, end in ((0, len(text)), (4, 30), (30, 34), (12, 12)):
        assert [words[n] for n in found.ids("a", start, end).tolist()] == terms(text[start:end])
    # A word that the range cuts is in neither part.
    assert [words[n] for n in found.ids("a", 6, 29).tolist()] == ["tides", "1871"]
