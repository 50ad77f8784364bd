from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.compiling import (
    OPTIMIZERS,
    CompileFailedError,
    CompileTask,
    check_optimizer,
    compile_candidates,
    predicted_calls,
    recombine,
    run_optimizer,
    teachable,
)
from optimize.compiling.candidate import BARE, Candidate, Demo, PredictorPrompt, apply_candidate, read_candidate
from optimize.compiling.feedback import feedback
from optimize.compiling.reflecting import ProposalAdapter, shorten
from optimize.compiling.tally import Tally
from optimize.data.dataset import Dataset
from optimize.evaluation.evaluate import evaluate
from optimize.metrics.metric import Score
from optimize.metrics.table import load_metric
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.errors import BudgetExhaustedError, EndpointError, RagwrightError
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.search import Search, open_search
from programs.signatures import Answer
from tests.compiling_cases import (
    GOOD,
    PARAMS,
    SMALL,
    Models,
    compile_villages,
    open_villages,
    prompt_of,
    write_instructions,
)
from tests.openai_server import OpenAIServer

ASKING = [name for name in OPTIMIZERS if name != "labeled_fewshot"]
WRITING = ["copro", "mipro", "simba", "gepa", "infer_rules"]


@pytest.fixture(scope="module")
def opened(villages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Search]:
    return open_villages(villages, tmp_path_factory.mktemp("indexes"))


@pytest.fixture(scope="module")
def data(opened: tuple[Dataset, Search]) -> Dataset:
    return opened[0]


@pytest.fixture(scope="module")
def search(opened: tuple[Dataset, Search]) -> Search:
    return opened[1]


def scores(candidates: list[Candidate], data: Dataset, search: Search, models: Models) -> list[float]:
    """Of the bare program, then of each candidate, on questions that compiling did not see."""
    examples = {example.id: example for example in data.examples}
    found = []
    with OpenAIServer(answer=models) as server:
        lm = open_lm(parse_lm({"model": "openai/reader", "api_base": server.url, "retries": 0}))
        for candidate in [None, *candidates]:
            program = build_program("rag", search)
            if candidate is not None:
                apply_candidate(program, candidate, examples)
            with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
                evaluation = evaluate(program, data.validation[:12], load_metric("exact_match"), 4)
            found.append(evaluation.mean()[0])
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_finds_the_better_prompt(optimizer: str, data: Dataset, search: Search, tmp_path: Path) -> None:
    with OpenAIServer(answer=Models()) as server:
        compiled = compile_villages(optimizer, data, search, server.url, folder=tmp_path)
        asked = list(server.requests)
    bare, *made = scores(compiled.candidates, data, search, Models(steady=True))
    assert bare < 0.7 and max(made) == 1.0
    assert sum(compiled.calls.values()) == sum(compiled.paid.values()) == len(asked)
    assert len(asked) <= predicted_calls(optimizer, PARAMS.get(optimizer, {}), 1, len(data.train))
    assert (tmp_path / f"{optimizer}.log").exists()
    for candidate in compiled.candidates:
        assert candidate.optimizer == optimizer
        assert Candidate.from_json(json.loads(json.dumps(candidate.as_json()))) == candidate
    for request in asked:
        # The reader is asked in the compact format that prompts are compiled for, the writer in chat.
        assert ("[[ ## " in request.prompt) == (request.body["model"] == "writer")
        # Every demo is shown with its passages.
        if request.body["model"] == "reader":
            assert request.prompt.count("Question:") == request.prompt.count("Context:") > 0
    if optimizer == "gepa":
        assert any("it is the generation that failed" in request.prompt for request in asked)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_where_no_prompt_is_better_none_is_said_to_be(optimizer: str, data: Dataset, search: Search) -> None:
    with OpenAIServer(answer=Models(wise=False)) as server:
        compiled = compile_villages(optimizer, data, search, server.url, params=SMALL[optimizer])
    assert set(scores(compiled.candidates, data, search, Models(wise=False))) == {0.0}
    if optimizer not in ("labeled_fewshot", "random_search"):
        assert all(candidate.demo_count == 0 for candidate in compiled.candidates)


@pytest.mark.parametrize("program", ["rewrite", "multihop"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_programs_of_two_predictors_are_compiled_whole(
    optimizer: str, program: str, data: Dataset, search: Search
) -> None:
    with OpenAIServer(answer=Models()) as server:
        compiled = compile_villages(optimizer, data, search, server.url, program=program, params=SMALL[optimizer])
        asked = len(server.requests)
    assert compiled.candidates
    assert asked <= predicted_calls(optimizer, SMALL[optimizer], 2, len(data.train))
    first = "write" if program == "rewrite" else "next_query"
    for candidate in compiled.candidates:
        assert set(candidate.prompts) == {first, "generate"}
        apply_candidate(build_program(program, search), candidate, {e.id: e for e in data.train})
    if optimizer in ("bootstrap_fewshot", "infer_rules"):
        assert all(set(d.outputs) == {"query"} for c in compiled.candidates for d in c.prompts[first].demos)
        assert any(c.prompts[first].demos for c in compiled.candidates)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_equal_seeds_make_equal_candidates(optimizer: str, data: Dataset, search: Search) -> None:
    def ids(seed: int) -> list[str]:
        with OpenAIServer(answer=Models(steady=True)) as server:
            compiled = compile_villages(optimizer, data, search, server.url, seed=seed, params=SMALL[optimizer])
        return [candidate.id for candidate in compiled.candidates]

    assert ids(0) == ids(0)
    if optimizer not in ("copro", "gepa", "simba"):
        assert ids(0) != ids(5)


def fail_now_and_then(server: OpenAIServer, share: float) -> Callable[[dict[str, Any]], str]:
    """Answers, and has the next request fail every 1 / `share` requests."""
    models, asked = Models(steady=True), 0

    def answer(body: dict[str, Any]) -> str:
        nonlocal asked
        asked += 1
        if asked % round((1 - share) / share) == 0:
            server.fail(500)
        return models(body)

    return answer


@pytest.mark.parametrize("optimizer", ASKING)
def test_a_result_with_many_failed_calls_is_not_trusted(optimizer: str, data: Dataset, search: Search) -> None:
    with OpenAIServer() as server:
        server.answer = fail_now_and_then(server, 0.3)
        with pytest.raises(
            CompileFailedError, match=rf"{optimizer} failed: \d+ of \d+ calls failed.*told to fail"
        ) as e:
            compile_villages(optimizer, data, search, server.url, params=SMALL[optimizer])
        # The gate may have sent probes on top.
        assert 0 < e.value.calls <= len(server.requests)


@pytest.mark.parametrize("optimizer", ["bootstrap_fewshot", "mipro", "gepa"])
def test_a_few_failed_calls_are_borne(optimizer: str, data: Dataset, search: Search) -> None:
    with OpenAIServer(answer=Models(steady=True)) as server:
        compile_villages(optimizer, data, search, server.url)
        server.fail(500) if optimizer != "bootstrap_fewshot" else None
        assert compile_villages(optimizer, data, search, server.url).candidates


@pytest.mark.parametrize("optimizer", ASKING)
def test_the_end_of_the_budget_gets_out(optimizer: str, data: Dataset, search: Search) -> None:
    admitted = 0

    def admit() -> None:
        nonlocal admitted
        admitted += 1
        if admitted > 2:
            raise BudgetExhaustedError("no calls are left")

    with OpenAIServer(answer=Models(steady=True)) as server:
        with pytest.raises(BudgetExhaustedError, match="no calls are left"):
            compile_villages(optimizer, data, search, server.url, admit=admit, params=SMALL[optimizer])
        assert len(server.requests) == 2
    # Calls that were under way in other threads may have asked, the rest fail before they ask.
    assert admitted <= 2 + 2


@pytest.mark.parametrize("optimizer", ASKING)
def test_a_key_that_is_refused_on_the_way_gets_out(optimizer: str, data: Dataset, search: Search) -> None:
    with OpenAIServer() as server:
        models = Models(steady=True)

        def answer(body: dict[str, Any]) -> str:
            if len(server.requests) >= 1:
                server.key = "another"
            return models(body)

        server.answer = answer
        with pytest.raises(EndpointError, match="key was refused"):
            compile_villages(optimizer, data, search, server.url, params=SMALL[optimizer])


def test_a_metric_that_fails_is_no_zero(data: Dataset, search: Search) -> None:
    def broken(example: Any, prediction: Any) -> float:
        raise RuntimeError("the judge is ill")

    metric = replace(load_metric("exact_match"), grade=broken)
    with OpenAIServer(answer=Models()) as server:
        lm = open_lm(parse_lm({"model": "openai/reader", "api_base": server.url, "retries": 0}))
        task = CompileTask(lambda: build_program("rag", search), data.train, metric, 0)
        with (
            dspy.context(lm=lm, adapter=FORMATS["compact"]()),
            pytest.raises(CompileFailedError, match=r"12 of 12 answers could not be scored.*the judge is ill"),
        ):
            compile_candidates(task, "bootstrap_fewshot", {})


@pytest.mark.parametrize("optimizer", WRITING)
def test_a_writer_that_writes_plain_prose_is_understood(optimizer: str, data: Dataset, search: Search) -> None:
    models = Models(steady=True)
    with OpenAIServer(answer=lambda body: GOOD if body["model"] == "writer" else models(body)) as server:
        compiled = compile_villages(optimizer, data, search, server.url, params=SMALL[optimizer])
    if optimizer != "simba":
        assert any(GOOD in str(candidate.prompts) for candidate in compiled.candidates)


@pytest.mark.parametrize("optimizer", ["copro", "gepa", "infer_rules"])
def test_a_writer_of_nothing_is_named(optimizer: str, data: Dataset, search: Search) -> None:
    models = Models(steady=True)
    with (
        OpenAIServer(answer=lambda body: "" if body["model"] == "writer" else models(body)) as server,
        pytest.raises(CompileFailedError, match="nothing that the reflection LM wrote can be read") as caught,
    ):
        compile_villages(optimizer, data, search, server.url, params=SMALL[optimizer])
    assert caught.value.calls <= predicted_calls(optimizer, SMALL[optimizer], 1, len(data.train))


def test_rules_do_not_leak_into_other_programs(data: Dataset, search: Search) -> None:
    before = Answer.instructions
    with OpenAIServer(answer=Models()) as server:
        compiled = compile_villages("infer_rules", data, search, server.url)
    assert Answer.instructions == before
    texts = {candidate.prompts["generate"].instructions for candidate in compiled.candidates}
    assert len(texts) == 2


def test_rules_of_simba_are_written_by_the_reflection_lm(data: Dataset, search: Search) -> None:
    with OpenAIServer(answer=Models()) as server:
        params = {"max_demos": 0, "num_candidates": 4}
        compiled = compile_villages("simba", data, search, server.url, params=params)
        assert len(server.requests) <= predicted_calls("simba", params, 1, len(data.train))
    assert compiled.calls["reflection"] > 0
    assert any(GOOD in candidate.prompts["generate"].instructions for candidate in compiled.candidates)


@pytest.mark.parametrize("optimizer", WRITING)
def test_one_lm_in_both_roles_completes_text_as_one_and_chats_as_the_other(
    optimizer: str, data: Dataset, search: Search
) -> None:
    reader = Models(steady=True)

    def answer(body: dict[str, Any]) -> str:
        return reader(body) if "prompt" in body else write_instructions(body, GOOD)

    spec = {"model": "openai/reader", "endpoint": "completion", "retries": 0}
    with OpenAIServer(answer=answer) as server:
        lm = open_lm(parse_lm({**spec, "api_base": server.url}))
        task = CompileTask(lambda: build_program("rag", search), data.train, load_metric("exact_match"), 0, threads=2)
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            compiled = run_optimizer(task, optimizer, SMALL[optimizer])
        paths = Counter(request.path for request in server.requests)
    assert paths["/v1/completions"] == compiled.calls["task"]
    assert paths["/v1/chat/completions"] == compiled.calls.get("reflection", 0) == compiled.paid.get("reflection", 0)


def test_a_chain_starts_from_the_best_so_far(data: Dataset, search: Search) -> None:
    models = Models(steady=True)

    def answer(body: dict[str, Any]) -> str:
        # Demos are enough to look up a miller; a weaver takes the good instruction, too.
        weaver = re.findall(r"Who is the (\w+) of", prompt_of(body))[-1:] == ["weaver"]
        demos = prompt_of(body).count("Who is the") > 1
        lost = body["model"] == "reader" and weaver and not (demos and GOOD in prompt_of(body))
        return "nobody in particular" if lost else models(body)

    steps = ["bootstrap_fewshot", {"copro": {"depth": 1}}]
    with OpenAIServer(answer=answer) as server:
        compiled = compile_villages("chain", data, search, server.url, params={"steps": steps, "held_out": 6})
        asked = len(server.requests)
    first, *later = compiled.candidates
    assert first.params == {"steps": steps[:1], "held_out": 6} and first.demo_count > 0 and first.parents == ()
    both = [c for c in later if GOOD in str(c.prompts) and c.demo_count == first.demo_count]
    assert both and both[0].parents == (first.id,)
    assert asked <= predicted_calls("chain", {"steps": steps, "held_out": 6}, 1, len(data.train))


def test_passages_of_demos_are_retrieved_again(data: Dataset, search: Search, tmp_path: Path) -> None:
    with OpenAIServer(answer=Models()) as server:
        [candidate] = compile_villages("labeled_fewshot", data, search, server.url).candidates
    examples = {example.id: example for example in data.examples}
    short = PipelineConfig(chunk_size=32, top_k=1, retriever="sparse").canonical()
    shown = []
    for found in (search, open_search(tmp_path, data.corpus, short)):
        program = build_program("rag", found)
        apply_candidate(program, candidate, examples)
        shown.append([demo["context"] for demo in program.generate.demos])
        for demo in program.generate.demos:
            assert demo["context"] == [passage.text for passage in found(demo["question"])]
    assert shown[0] != shown[1]
    by_question = {example.question: example for example in data.examples}
    assert read_candidate(program, by_question, "labeled_fewshot").id == candidate.id


def test_demos_teach_nothing_that_their_passages_lack(data: Dataset, search: Search) -> None:
    assert teachable(data.train, search)
    assert teachable(data.train, lambda question: ()) == ()


def test_demos_of_unknown_questions_are_left_out_and_partial_ones_kept(data: Dataset) -> None:
    class Thinking(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.generate = dspy.ChainOfThought("context, question -> answer")

    program, known = Thinking(), data.train[0]
    program.generate.predict.demos = [
        dspy.Example(question="never asked", answer="x"),
        dspy.Example(query="no question at all", answer="x"),
        dspy.Example(question=known.question),
        dspy.Example(question=known.question, answer="y"),
    ]
    read = read_candidate(program, {known.question: known})
    assert read.prompts["generate.predict"].demos == (Demo(known.id, {"answer": "y"}),)


def test_recombinations_are_new_and_have_two_parents() -> None:
    def made(name: str, instructions: str, *demos: str) -> Candidate:
        return Candidate(
            {"generate": PredictorPrompt(instructions, tuple(Demo(d, {"answer": d}) for d in demos))}, name
        )

    best, second, bare = made("gepa", "good"), made("bootstrap", "plain", "a", "b"), made(BARE, "plain")
    children = recombine([best, second, bare])
    assert [child.parents for child in children] == [(best.id, second.id)]
    assert children[0].prompts["generate"] == PredictorPrompt("good", second.prompts["generate"].demos)
    third = made("mipro", "other", "c")
    pool = [best, second, third, bare]
    everything = recombine(pool, most=100)
    assert everything[: len(recombine(pool, most=2))] == recombine(pool, most=2)
    contents = [candidate.content for candidate in [*pool, *everything]]
    assert len(set(contents)) == len(contents) and everything[0].parents == (best.id, second.id)
    assert recombine(children) == [] == recombine([])


def test_feedback_tells_retrieval_from_generation(data: Dataset, search: Search) -> None:
    example = data.train[0]
    found, missed = tuple(search(example.question)), tuple(search("cheese, wool and firewood"))
    wrong = Score(0.0, "expected 'x'; got 'y'")
    assert teachable([example], search)
    assert "generation that failed" in feedback(example, dspy.Prediction(answer="y", passages=found), wrong)
    said = feedback(example, dspy.Prediction(answer="y", passages=missed[:1]), wrong)
    assert "Retrieval failed" in said and example.evidence[0][0].quote in said and said.startswith("expected 'x'")
    assert "failed" not in feedback(example, dspy.Prediction(answer="y", passages=found), Score(1.0))
    assert "Retrieval" not in feedback(replace(example, evidence=()), dspy.Prediction(answer="y", passages=()), wrong)


def test_long_inputs_are_cut_to_one_length() -> None:
    values = {"short": "abc", "long": "x" * 500, "nested": [{"a": "y" * 300}, 7]}
    cut = shorten(values, 203)
    assert cut["short"] == "abc" and cut["nested"][1] == 7
    lengths = [len(cut["long"].replace(" [...] ", "")), len(cut["nested"][0]["a"].replace(" [...] ", ""))]
    assert lengths == [100, 100]
    assert shorten(values, 1000) == values and shorten({}, 10) == {}


def test_answers_of_the_writer_that_lack_a_field_are_not_guessed_at() -> None:
    adapter = ProposalAdapter(Tally())
    signature = dspy.Signature("a -> reasoning, rules")
    assert adapter.parse(signature, "just prose") == {"reasoning": "just prose", "rules": "just prose"}
    for answer in ("[[ ## reasoning ## ]]\nonly this", "", "  "):
        with pytest.raises(dspy.utils.exceptions.AdapterParseError):
            adapter.parse(signature, answer)
    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        adapter.parse(dspy.Signature("a -> advice: dict[str, str]"), "just prose")


BAD: dict[str, tuple[str, Any, str]] = {
    "unknown": ("miprov9", {}, "labeled_fewshot, bootstrap_fewshot"),
    "parameter": ("labeled_fewshot", {"kk": 1}, "'kk'; it takes: k"),
    "k": ("labeled_fewshot", {"k": [1, 0]}, r"k is \[1, 0\]"),
    "range": ("copro", {"breadth": 1}, "breadth is 1 and has to be a whole number from 2 to 50"),
    "type": ("mipro", {"num_trials": "four"}, "num_trials is 'four'"),
    "bool": ("mipro", {"num_trials": True}, "num_trials is True"),
    "bsize": ("simba", {"bsize": 20}, "bsize is 20 and must not exceed examples, which is 12"),
    "gepa": ("gepa", {"max_metric_calls": 5}, "one round takes 14"),
    "knn": ("knn_fewshot", {}, "unknown optimizer"),
    "no steps": ("chain", {}, "two optimizers or more"),
    "one step": ("chain", ["gepa"], "two optimizers or more"),
    "chain in chain": ("chain", ["gepa", "chain"], "unknown optimizer 'chain'"),
    "step parameter": ("chain", ["gepa", {"copro": {"breadth": 0}}], "breadth is 0"),
    "step": ("chain", ["gepa", 7], "a step is an optimizer's name"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_before_anything_starts(case: str) -> None:
    name, params, message = BAD[case]
    with pytest.raises(RagwrightError, match=message) as caught:
        check_optimizer(name, params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_least_training_examples_are_enough(optimizer: str, data: Dataset, search: Search) -> None:
    params = SMALL[optimizer]
    least = next(n for n in range(100) if _fits(optimizer, params, n))
    with OpenAIServer(answer=Models()) as server:
        few = replace(data, train=data.train[:least])
        compiled = compile_villages(optimizer, few, search, server.url, params=params)
        assert sum(compiled.calls.values()) == len(server.requests) <= predicted_calls(optimizer, params, 1, least)
        server.requests.clear()
        with pytest.raises(
            CompileFailedError, match=f"{optimizer} needs {least} training examples.*there are {least - 1}"
        ):
            compile_villages(optimizer, replace(data, train=data.train[: least - 1]), search, server.url, params=params)
        assert not server.requests


def _fits(optimizer: str, params: Any, train: int) -> bool:
    try:
        check_optimizer(optimizer, params, train)
    except RagwrightError:
        return False
    return True


def test_a_writer_that_may_write_nothing_is_refused(data: Dataset, search: Search) -> None:
    with OpenAIServer(answer=Models()) as server:
        spec = parse_lm({"model": "openai/writer", "api_base": server.url, "max_tokens": 16})
        with pytest.raises(RagwrightError, match="may write 16 tokens"):
            check_optimizer("gepa", {}, reflection=spec)
        check_optimizer("random_search", {}, reflection=spec)
        short = open_lm(spec)
        task = CompileTask(lambda: build_program("rag", search), data.train, load_metric("exact_match"), 0, short)
        with dspy.context(lm=short), pytest.raises(CompileFailedError, match=r"may write 16 tokens.*reflection_lm"):
            compile_candidates(task, "gepa", {})
        assert not server.requests
