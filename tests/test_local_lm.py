from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Config, ContextLengthError, Message, Request
from dspy.utils.exceptions import ContextWindowExceededError

from programs.errors import EndpointError, MissingExtraError, RagwrightError
from programs.lm import describe_endpoint, open_lm, parse_lm
from programs.local_lm import LocalEngine, default_model, open_local_engine
from programs.metered_lm import MeteredLM
from programs.metering import collect_calls
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache

QA = "context: list[str], question -> answer"
DEMOS = [
    {"context": ["The bridge at Oln was opened in 1920."], "question": "When was the bridge opened?", "answer": "1920"},
    {"context": ["Ada Finch wrote the manual."], "question": "Who wrote the manual?", "answer": "Ada Finch"},
]
INPUTS: dict[str, Any] = {
    "context": ["The lighthouse at Varn was built in 1871 by Oskar Lind."],
    "question": "When was the lighthouse built?",
}


def predictor(demos: list[dict[str, Any]]) -> dspy.Predict:
    found = dspy.Predict(QA)
    found.demos = demos
    return found


def ask(lm: MeteredLM, demos: list[dict[str, Any]], prompt_format: str = "compact", **inputs: Any) -> str:
    with dspy.context(lm=lm, adapter=FORMATS[prompt_format]()):
        return str(predictor(demos)(**{**INPUTS, **inputs}).answer)


# Without the model


def test_missing_weights_name_both_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RagwrightError, match=r"run `uv sync`.*local:/path/model\.gguf"):
        parse_lm("local")


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"ragwright\[local\]"):
        open_lm(parse_lm(f"local:{tmp_path / 'm.gguf'}"))


# With it


@pytest.fixture(scope="module")
def spec() -> Any:
    return parse_lm({"model": "local", "context_length": 1024, "max_tokens": 24})


@pytest.fixture(scope="module")
def engine(spec: Any) -> Iterator[LocalEngine]:
    engine = open_local_engine(spec.weights(), context_length=1024)
    yield engine
    engine.close()


@pytest.fixture
def lm(spec: Any, engine: LocalEngine, tmp_path: Path) -> MeteredLM:
    return open_lm(spec, cache=ResponseCache(tmp_path / "responses.sqlite"))


@pytest.mark.model
def test_it_answers_from_the_context_and_the_second_time_from_the_cache(lm: MeteredLM) -> None:
    with collect_calls() as calls:
        first, second = ask(lm, DEMOS), ask(lm, DEMOS)
    assert first == second == "1871"
    assert [call.paid for call in calls] == [True, False]
    assert calls[0].prompt_tokens == calls[1].prompt_tokens > 50
    assert 0 < calls[0].completion_tokens < 20
    assert calls[0].latency_s == calls[1].latency_s > 0
    assert calls[0].usd == 0.0


@pytest.mark.model
def test_shared_beginnings_are_read_once(lm: MeteredLM) -> None:
    ask(lm, DEMOS)
    with collect_calls() as calls:
        ask(lm, DEMOS, question="Who built the lighthouse?")
    assert calls[0].cached_prompt_tokens > calls[0].prompt_tokens / 2


@pytest.mark.model
def test_many_threads_get_the_answers_that_one_gets(lm: MeteredLM, spec: Any) -> None:
    questions = [f"When was lighthouse number {number} built?" for number in range(6)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: ask(lm, DEMOS, question=question), questions))
    alone = [ask(open_lm(spec), DEMOS, question=question) for question in reversed(questions)]
    assert together == alone[::-1]


@pytest.mark.model
def test_a_bare_prompt_without_demos_is_not_answered_with_nothing(lm: MeteredLM) -> None:
    things = {"bridge": "Oln", "tower": "Varn", "mill": "Esk", "harbour": "Tarn", "school": "Holm"}
    answers = [
        ask(lm, [], context=[f"The {thing} is in {place}."], question=f"Where is the {thing}?")
        for thing, place in things.items()
    ]
    assert all(answers)


@pytest.mark.model
def test_json_is_held_to_the_schema(lm: MeteredLM) -> None:
    with dspy.context(lm=lm, adapter=FORMATS["json"]()):
        found = dspy.Predict("question -> answer: int, sure: bool")(question="What is 2 + 2?")
    assert isinstance(found.answer, int)
    assert isinstance(found.sure, bool)


@pytest.mark.model
def test_a_prompt_that_is_too_long_is_an_error_of_its_call(lm: MeteredLM) -> None:
    ask(lm, DEMOS)
    with pytest.raises(ContextWindowExceededError, match=r"has \d+ tokens and the local model's context holds 1024"):
        ask(lm, DEMOS, context=["word " * 2000])
    assert ask(lm, DEMOS) == "1871"


@pytest.mark.model
def test_samples_differ_by_rollout_and_repeat_with_their_seed(spec: Any, engine: LocalEngine) -> None:
    def sample(number: int) -> str:
        hot = open_lm(spec).copy(rollout_id=number, temperature=1.5)
        return ask(hot, [], context=["Anything goes."], question="Tell a story of ten words.")

    stories = [sample(number) for number in range(3)]
    assert stories == [sample(number) for number in range(3)]
    assert len(set(stories)) > 1


@pytest.mark.model
def test_tokens_are_counted_by_the_models_own_tokenizer(engine: LocalEngine) -> None:
    assert engine.count_tokens("") == 0
    assert engine.count_tokens("hello world") == 2


@pytest.mark.model
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    engine = LocalEngine(default_model(), context_length=512)
    engine.complete(Request("m", (Message.user("Hello"),), config=Config(max_tokens=4)))
    with pytest.raises(ContextLengthError):
        engine.complete(Request("m", (Message.user("word " * 1000),), config=Config(max_tokens=4)))
    engine.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.model
def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"no model")
    lm = open_lm(parse_lm(f"local:{tmp_path / 'm.gguf'}"))
    with pytest.raises(EndpointError, match=r"cannot load .*m\.gguf"):
        ask(lm, [])


@pytest.mark.model
def test_two_lms_share_one_engine_and_the_endpoint_is_this_process(spec: Any) -> None:
    first, second = (open_local_engine(spec.weights(), context_length=1024) for _ in range(2))
    assert first is second
    assert describe_endpoint(spec) == "this process (SmolLM2-135M-Instruct.Q4_1.gguf)"
