from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import embedding
from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.index import Index, open_index
from programs.reranking import RERANKERS
from programs.types import Document, Passage

# Texts with vectors that can be reckoned with: near, its twin, one as near from another side, and one opposite.
VECTORS = {
    "The harbour was built in 1871.": [0.8, 0.6],
    "In 1871 the harbour was built.": [0.8, 0.6],
    "A crane unloads the ships.": [0.8, -0.6],
    "Bread is baked before dawn.": [-1.0, 0.0],
    "When was the crane built?": [1.0, 0.0],
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(embedding.EMBEDDERS, "by-hand", lambda: lambda texts: [VECTORS[text] for text in texts])
        documents = (Document(str(number), text) for number, text in enumerate(list(VECTORS)[:4]))
        config = PipelineConfig(chunk_size=64, embedder="by-hand")
        opened = open_index(tmp_path_factory.mktemp("indexes"), Corpus.from_documents(documents), config)
        yield opened
        opened.close()


def passages(index: Index, order: str = "0123") -> list[Passage]:
    return [Passage(index.chunks[int(digit)], 1.0 - 0.1 * place) for place, digit in enumerate(order)]


def order(found: list[Passage]) -> str:
    return "".join(passage.span.doc_id for passage in found)


QUESTION = "When was the crane built?"


@pytest.mark.parametrize("reranker", RERANKERS)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_every_reranker_keeps_the_contract(index: Index, reranker: str, k: int) -> None:
    rerank = RERANKERS[reranker](index).rerank
    found = rerank(QUESTION, passages(index), k)
    assert len(found) == min(k, 4) and len(set(order(found))) == len(found)
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)
    assert rerank(QUESTION, passages(index), k) == found
    assert rerank(QUESTION, [], k) == []
    assert len(rerank("", passages(index), k)) == len(found)


@pytest.mark.parametrize("reranker", RERANKERS)
def test_no_results_cannot_be_asked_for(index: Index, reranker: str) -> None:
    with pytest.raises(RagwrightError, match="k: at least 1"):
        RERANKERS[reranker](index).rerank(QUESTION, passages(index), 0)


def test_none_keeps_order_and_scores(index: Index) -> None:
    given = passages(index, "3120")
    assert RERANKERS["none"](index).rerank(QUESTION, given, 3) == given[:3]


def test_lexical_prefers_rare_words_and_keeps_ties(index: Index) -> None:
    found = RERANKERS["lexical"](index).rerank(QUESTION, passages(index, "3102"), 4)
    assert order(found) == "2103"
    rare, common = index.sparse.idf("crane"), index.sparse.idf("built")
    assert [passage.score for passage in found] == pytest.approx(
        [rare / (rare + common), common / (rare + common), common / (rare + common), 0]
    )


def test_lexical_gives_one_to_a_passage_that_has_all_words(index: Index) -> None:
    (best,) = RERANKERS["lexical"](index).rerank("the harbour, built 1871: built?", passages(index), 1)
    assert best.score == pytest.approx(1)


@pytest.mark.parametrize("question", ["", "the of and", "🦛"])
def test_lexical_keeps_the_order_where_no_word_counts(index: Index, question: str) -> None:
    found = RERANKERS["lexical"](index).rerank(question, passages(index, "2031"), 4)
    assert order(found) == "2031" and {passage.score for passage in found} == {0.0}


def test_mmr_puts_a_twin_behind_something_new(index: Index) -> None:
    found = RERANKERS["mmr"](index).rerank(QUESTION, passages(index), 4)
    assert order(found) == "0213"
    scores = [0.7 * 0.8, 0.7 * 0.8 - 0.3 * 0.28, 0.7 * 0.8 - 0.3, -0.7]
    assert [passage.score for passage in found] == pytest.approx(scores, abs=1e-5)


def test_mmr_needs_an_embedder(tmp_path: Path) -> None:
    bare = open_index(tmp_path, Corpus.from_documents([Document("a", "x")]), PipelineConfig(retriever="sparse"))
    with pytest.raises(RagwrightError, match="mmr needs an embedder"):
        RERANKERS["mmr"](bare)
