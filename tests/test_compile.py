from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.candidate import Candidate, apply_candidate, read_candidate
from optimize.compile import OPTIMIZERS, CompileTask, compile_candidates, teachable
from optimize.dataset import Dataset, load_dataset
from optimize.metrics import token_f1
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.errors import RagwrightError
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.search import Search, open_search
from tests.openai_server import OpenAIServer
from tests.villages import read_villages

PARAMS: dict[str, dict[str, Any]] = {"labeled_fewshot": {"k": 2}, "bootstrap_fewshot": {"attempts": 8}}


@pytest.fixture(scope="module")
def data(villages: Path) -> Dataset:
    return load_dataset(villages)


@pytest.fixture(scope="module")
def searches(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Search]:
    root = tmp_path_factory.mktemp("indexes")
    long = PipelineConfig(chunk_size=64, top_k=2, retriever="sparse").canonical()
    short = PipelineConfig(chunk_size=32, top_k=1, retriever="sparse").canonical()
    return {name: open_search(root, data.corpus, config) for name, config in (("long", long), ("short", short))}


def compiled(optimizer: str, data: Dataset, search: Search, seed: int = 0) -> tuple[list[Candidate], int, int]:
    with OpenAIServer(answer=read_villages) as server:
        lm = open_lm(parse_lm({"model": "openai/reader", "api_base": server.url, "retries": 0}))
        task = CompileTask(lambda: build_program("rag", search), data.train, token_f1, seed)
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            candidates, calls = compile_candidates(task, optimizer, PARAMS[optimizer])
        return candidates, calls, len(server.requests)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_makes_a_candidate_that_survives_its_file(
    optimizer: str, data: Dataset, searches: dict[str, Search], tmp_path: Path
) -> None:
    candidates, calls, requests = compiled(optimizer, data, searches["long"])
    assert candidates and calls == requests
    for candidate in candidates:
        assert candidate.optimizer == optimizer and candidate.demo_count > 0
        read = Candidate.from_json(candidate.as_json())
        assert read == candidate and read.id == candidate.id
        demos = candidate.prompts["generate"].demos
        assert {demo.example_id for demo in demos} <= {example.id for example in data.train}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_equal_seeds_compile_equal_candidates(optimizer: str, data: Dataset, searches: dict[str, Search]) -> None:
    one, other = (compiled(optimizer, data, searches["long"], seed)[0] for seed in (0, 0))
    assert [candidate.id for candidate in one] == [candidate.id for candidate in other]
    different = compiled(optimizer, data, searches["long"], seed=5)[0]
    assert [candidate.id for candidate in one] != [candidate.id for candidate in different]


def test_passages_of_demos_are_retrieved_again(data: Dataset, searches: dict[str, Search]) -> None:
    (candidate,), _, _ = compiled("labeled_fewshot", data, searches["long"])
    examples = {example.id: example for example in data.examples}
    shown = {}
    for name, search in searches.items():
        program = build_program("rag", search)
        apply_candidate(program, candidate, examples)
        shown[name] = [demo["context"] for demo in program.generate.demos]
        for demo in program.generate.demos:
            assert demo["context"] == [passage.text for passage in search(demo["question"])]
    assert shown["long"] != shown["short"]
    by_question = {example.question: example for example in data.examples}
    assert read_candidate(program, by_question, "labeled_fewshot").id == candidate.id


def test_demos_teach_nothing_that_their_passages_lack(data: Dataset, searches: dict[str, Search]) -> None:
    assert teachable(data.train, searches["long"])
    assert teachable(data.train, lambda question: ()) == ()


def test_unknown_optimizers_and_parameters_are_named(data: Dataset, searches: dict[str, Search]) -> None:
    task = CompileTask(lambda: build_program("rag", searches["long"]), data.train, token_f1, 0)
    with pytest.raises(RagwrightError, match="labeled_fewshot, bootstrap_fewshot"):
        compile_candidates(task, "miprov9", {})
    with pytest.raises(RagwrightError, match="'kk'; it takes: k"):
        compile_candidates(task, "labeled_fewshot", {"kk": 1})
