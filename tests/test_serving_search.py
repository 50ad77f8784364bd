from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from optimize.serving.search import MOST_TOGETHER, BatchedSearch, batch_searches
from programs.config import PipelineConfig
from programs.errors import RagwrightError
from programs.ranking import Ranking
from programs.search import Search, open_search
from tests.outcomes import Studied

CONFIGS = {
    "hybrid": PipelineConfig(chunk_size=64, retriever="hybrid", reranker="lexical", retrieve_k=9, top_k=2),
    "mmr": PipelineConfig(chunk_size=64, retriever="dense", reranker="mmr", retrieve_k=9, top_k=2),
    "cutoff": PipelineConfig(chunk_size=64, retriever="sparse", retrieve_k=9, cutoff=0.5, top_k=5),
    "expanded": PipelineConfig(chunk_size=32, retriever="weighted", top_k=2, expansion="neighbours"),
}


def opened(studied: Studied, config: PipelineConfig) -> Search:
    return open_search(studied.run.path.parent, studied.dataset.corpus, config.canonical(), served=True)


class Watched:
    """A retriever that notes how many questions come together, and takes its time."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.sizes: list[int] = []
        self.open = 0

    def retrieve(self, questions: Sequence[str], k: int) -> list[Ranking]:
        self.open += 1
        assert self.open == 1, "one batch at a time"
        self.sizes.append(len(questions))
        time.sleep(0.02)
        if any("please fail" in question for question in questions):
            self.open -= 1
            raise RagwrightError("told to fail")
        found: list[Ranking] = self.inner.retrieve(questions, k)
        self.open -= 1
        return found


@pytest.mark.parametrize("name", CONFIGS)
def test_company_changes_nothing(studied: Studied, name: str) -> None:
    search = opened(studied, CONFIGS[name])
    questions = [example.question for example in studied.dataset.examples] + ["", "  ", "zzz"]
    alone = [search(question) for question in questions]
    watched = Watched(search.retriever)
    batched = BatchedSearch(replace(search, retriever=watched))
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(batched, questions))
    assert together == alone
    assert sum(watched.sizes) == len(questions)
    assert 4 < max(watched.sizes) <= 16


def test_one_question_waits_for_no_company(studied: Studied) -> None:
    watched = Watched(opened(studied, CONFIGS["cutoff"]).retriever)
    batched = BatchedSearch(replace(opened(studied, CONFIGS["cutoff"]), retriever=watched))
    for number in range(3):
        assert batched(f"When was the tower test {number} built?")
    assert watched.sizes == [1, 1, 1]


def test_an_error_is_that_of_its_question(studied: Studied) -> None:
    search = opened(studied, CONFIGS["cutoff"])
    batched = BatchedSearch(replace(search, retriever=Watched(search.retriever)))

    def ask(number: int) -> bool:
        question = "please fail" if number % 5 == 0 else f"When was the tower test {number % 12} built?"
        try:
            return batched(question) == search(question)
        except RagwrightError:
            return question == "please fail"

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(60)))


def test_a_crowd_is_served_in_turns(studied: Studied) -> None:
    search = opened(studied, CONFIGS["cutoff"])
    watched = Watched(search.retriever)
    batched, count = BatchedSearch(replace(search, retriever=watched)), 2 * MOST_TOGETHER
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(batched("tower test 7"))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(found) == count
    assert max(watched.sizes) <= MOST_TOGETHER


def test_only_searches_that_stay_here_are_batched(studied: Studied) -> None:
    class Program:
        search: Any = None

    program, search = Program(), opened(studied, CONFIGS["cutoff"])
    program.search = replace(search, config=replace(search.config, reranker="llm"))
    assert not batch_searches(program)
    program.search = replace(search, config=replace(search.config, reranker="cohere/rerank-v3.5"))
    assert not batch_searches(program)
    program.search = lambda question: ()
    assert not batch_searches(program)
    program.search = search
    assert batch_searches(program) and isinstance(program.search, BatchedSearch)
