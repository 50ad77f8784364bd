from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.ranking import Ranking
from programs.reranking import NEEDS_LM, RERANKERS
from programs.retrieval import RETRIEVERS
from programs.search import Search, context_tokens, cut_off, open_search
from programs.splitting import SPLITTERS
from programs.tokens import count_tokens
from programs.types import Document

FACTS = [
    "The harbour of Marrow was built in 1871.",
    "The lighthouse keeper is called Ada Fenn.",
    "Bread is baked before dawn in the old town.",
    "The ferry to Hale leaves at noon.",
    "Anchors are forged by the Bellow brothers.",
]
CORPUS = Corpus.from_documents(
    Document(f"{number}.md", f"# Fact {number}\n\n{fact}\n\nIt is well known.") for number, fact in enumerate(FACTS)
)
CONFIG = PipelineConfig(chunk_size=32, retrieve_k=4, top_k=2)
WITHOUT_LM = [name for name in RERANKERS if name not in NEEDS_LM]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("indexes")


@pytest.mark.parametrize(("splitter", "retriever", "reranker"), product(SPLITTERS, RETRIEVERS, WITHOUT_LM))
def test_every_pipeline_finds_the_fact(root: Path, splitter: str, retriever: str, reranker: str) -> None:
    config = replace(CONFIG, splitter=splitter, retriever=retriever, reranker=reranker)
    search = open_search(root, CORPUS, config)
    found = search("Who is the keeper of the lighthouse?")
    assert 1 <= len(found) <= 2 and "Ada Fenn" in " ".join(passage.text for passage in found)
    assert search("Who is the keeper of the lighthouse?") == found


def test_the_reranker_sees_retrieve_k_and_the_reader_top_k(root: Path) -> None:
    asked: list[int] = []

    class Recorder:
        def retrieve(self, questions: Sequence[str], k: int) -> list[Ranking]:
            asked.append(k)
            return real.retrieve(questions, k)

    cases: list[tuple[dict[str, Any], int]] = [
        ({"reranker": "lexical"}, 4),
        ({}, 2),
        ({"reranker": "lexical", "retrieve_k": 1}, 2),
        ({"cutoff": 0.1}, 4),
    ]
    for changes, expected in cases:
        search = open_search(root, CORPUS, replace(CONFIG, **changes))
        real = search.retriever
        found = Search(search.config, search.index, Recorder(), search.reranker, search.expander)("bread and anchors")
        assert asked.pop() == expected and 1 <= len(found) <= 2


def test_a_cutoff_drops_what_is_too_weak(root: Path) -> None:
    question = "Who is the keeper of the lighthouse?"
    lengths = [
        len(open_search(root, CORPUS, replace(CONFIG, retrieve_k=5, top_k=5, cutoff=cutoff))(question))
        for cutoff in (0.0, 0.3, 0.6, 0.99)
    ]
    assert lengths[0] == 5 and lengths[-1] == 1 and lengths == sorted(lengths, reverse=True)
    ranking = Ranking(np.arange(4), np.array([2.0, 1.0, 0.5, -2.0], dtype=np.float32))
    assert cut_off(ranking, 0.7).positions.tolist() == [0, 1]
    assert len(cut_off(Ranking.empty(), 0.5)) == 0


def test_a_question_that_matches_nothing_finds_nothing(root: Path) -> None:
    search = open_search(root, CORPUS, replace(CONFIG, retriever="sparse"))
    assert search("") == search("xylophone") == ()


def test_a_question_with_a_lone_surrogate_is_answered(root: Path) -> None:
    assert open_search(root, CORPUS, CONFIG)("bread \ud800")


def test_a_search_is_frozen_canonical_and_shared_by_copies(root: Path) -> None:
    search = open_search(root, CORPUS, CONFIG)
    assert search.config == CONFIG.canonical() and search.config.retrieve_k == 2
    assert copy.deepcopy([search])[0] is search
    with pytest.raises(FrozenInstanceError):
        search.config = CONFIG  # type: ignore[misc]


def test_searches_of_one_chunking_share_the_index(root: Path) -> None:
    one = open_search(root, CORPUS, CONFIG)
    other = open_search(root, CORPUS, replace(CONFIG, retriever="hybrid", reranker="mmr", top_k=1))
    assert one.index is other.index


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retriever": "magic"}, "retriever: 'magic' is unknown; choose one of dense, sparse, hybrid"),
        ({"reranker": "magic"}, "reranker: 'magic' is unknown; choose .*none, lexical, mmr"),
        ({"top_k": 0}, "top_k: at least 1 passage"),
        ({"expansion": "magic"}, "'magic' is unknown; choose one of none, neighbours, parent"),
        ({"context_prefix": "magic"}, "'magic' is unknown; choose one of none, title, headings"),
        ({"embedder": "none"}, "embedder: 'none' goes only with sparse"),
        ({"embedder": "none", "retriever": "sparse", "reranker": "mmr"}, "embedder: 'none' goes only with sparse"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_built(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RagwrightError, match=message):
        open_search(tmp_path, CORPUS, replace(CONFIG, **changes))
    assert list(tmp_path.iterdir()) == []


def test_context_tokens_are_those_of_the_texts(root: Path) -> None:
    found = open_search(root, CORPUS, CONFIG)("When does the ferry leave?")
    assert context_tokens(found) == sum(count_tokens(passage.text) for passage in found) > 0
    assert context_tokens([]) == 0
