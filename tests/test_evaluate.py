from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.data.example import Example, Place
from optimize.evaluation.evaluate import Evaluation, Row, evaluate
from optimize.metrics.metric import Metric
from optimize.metrics.table import load_metric, token_f1
from optimize.runs.run_dir import ledger_of
from programs.errors import BudgetExhaustedError, EndpointError, RagwrightError
from programs.lm import open_lm, parse_lm
from programs.rag import RAG
from programs.response_cache import ResponseCache
from programs.types import Span
from tests.judge_model import judge, passage, rating
from tests.openai_server import OpenAIServer

FACT = "Ada wrote it."


def examples(n: int = 4) -> list[Example]:
    evidence = ((Place(Span("d", 0, len(FACT)), FACT),),)
    return [Example(f"q{i}", f"Who wrote page {i}?", ("Ada",), evidence) for i in range(n)]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=lambda body: "[[ ## answer ## ]]\nAda\n\n[[ ## completed ## ]]") as server:
        yield server


def open_at(server: OpenAIServer, role: Any = "task", temperature: float = 0.0, **more: Any) -> dspy.LM:
    spec = {"model": "openai/m", "api_base": server.url, "retries": 0, "temperature": temperature}
    return open_lm(parse_lm(spec), role=role, **more)


def program() -> dspy.Module:
    return RAG(lambda question: (passage(FACT),))


def run(lm: dspy.LM, metric: Metric = token_f1, n: int = 4, build: Any = program, **more: Any) -> Evaluation:
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return evaluate(build(), examples(n), metric, threads=4, **more)


def made(name: str, grade: Callable[[Example, dspy.Prediction], Any]) -> Metric:
    return Metric(name, frozenset({"answers"}), grade)


def broken(example: Example, prediction: dspy.Prediction) -> float:
    raise ValueError(f"cannot score {example.id}")


# Rows.


def test_row_holds_what_happened_and_is_read_back(server: OpenAIServer) -> None:
    evaluation = run(open_at(server))
    row = evaluation.rows[0]
    assert (row.example_id, row.score, row.answer, row.error, row.feedback) == ("q0", 1.0, "Ada", None, "")
    assert (row.calls, row.paid_calls, row.judge_calls, row.judge_tokens, row.judge_usd) == (1, 1, 0, 0, 0.0)
    assert row.prompt_tokens > 0 < row.completion_tokens
    assert (row.total_calls, row.total_tokens) == (1, row.prompt_tokens + row.completion_tokens)
    assert row.measures["span_recall"] == 1
    assert [Row.from_json(json.loads(json.dumps(row.as_json()))) for row in evaluation.rows] == list(evaluation.rows)


def test_rows_of_before_are_read_too() -> None:
    old = {
        **{"example_id": "q0", "score": 0.5, "answer": "Ada", "measures": {}, "context_tokens": 3, "usd": None},
        **{"prompt_tokens": 5, "completion_tokens": 2, "calls": 1, "paid_calls": 0, "latency_s": 0.25, "error": None},
        "spans": [{"doc_id": "d", "start": 0, "end": 4}],
    }
    row = Row.from_json(old)
    assert (row.repeats, row.judge_calls, row.also, row.feedback) == (1, 0, {}, "")
    assert (row.total_calls, row.total_tokens, row.total_usd) == (1, 7, None)
    assert row.spans == (Span("d", 0, 4),)


def test_feedback_of_a_wrong_answer_is_kept(server: OpenAIServer) -> None:
    server.answer = lambda body: "[[ ## answer ## ]]\nBob\n\n[[ ## completed ## ]]"
    row = run(open_at(server), n=1).rows[0]
    assert (row.score, row.feedback) == (0.0, "expected 'Ada'; got 'Bob'")


def test_failure_is_a_row_and_no_zero(server: OpenAIServer) -> None:
    evaluation = run(open_at(server), made("broken", broken), n=2)
    assert [row.score for row in evaluation.rows] == [None, None]
    assert evaluation.rows[1].error == "ValueError: cannot score q1"
    assert (evaluation.failures, evaluation.scores, evaluation.valid) == (2, {}, False)
    assert evaluation.rows[1].calls == 1


def test_program_that_returns_nothing_is_a_failure(server: OpenAIServer) -> None:
    class Silent(dspy.Module):
        def forward(self, question: str) -> None:
            return None

    [row] = run(open_at(server), n=1, build=Silent).rows
    assert (row.score, row.answer) == (None, None)
    assert row.error


def test_rows_come_in_order_and_evaluations_add_up(server: OpenAIServer) -> None:
    seen: list[str] = []
    lm = open_at(server)
    with dspy.context(lm=lm):
        first = evaluate(program(), examples(4)[:2], token_f1, 2, lambda row: seen.append(row.example_id))
        rest = evaluate(program(), examples(4)[2:], token_f1, 2)
    both = first + rest
    assert seen == ["q0", "q1"]
    assert list(both.scores) == ["q0", "q1", "q2", "q3"]
    assert both.total("calls") == 4
    with pytest.raises(ValueError, match="'q0' was evaluated in both parts"):
        first + first


# Judges and further metrics.


def test_calls_of_the_judge_are_told_from_those_of_the_program(server: OpenAIServer) -> None:
    with OpenAIServer(answer=judge) as other:
        metric = load_metric({"groundedness": 0.5, "token_f1": 0.5}, open_at(other, "judge"))
        evaluation = run(open_at(server), metric, also=[load_metric("correctness", open_at(other, "judge"))])
    alone = run(open_at(server))
    for row, plain in zip(evaluation.rows, alone.rows, strict=True):
        assert (row.score, row.also) == (1.0, {"correctness": 1.0})
        assert (row.calls, row.judge_calls, row.total_calls) == (1, 2, 3)
        assert (row.prompt_tokens, row.completion_tokens) == (plain.prompt_tokens, plain.completion_tokens)
        assert row.judge_tokens > 50
        assert row.total_tokens == plain.total_tokens + row.judge_tokens
        # Nobody knows the price of this model.
        assert row.judge_usd is row.total_usd is None
    assert evaluation.total("total_calls") == 12
    judging = ledger_of(evaluation).role("judge")
    assert (judging.calls, judging.paid_calls, judging.usd) == (8, 8, None)
    assert judging.tokens == evaluation.total("judge_tokens")
    assert evaluation.also("correctness") == dict.fromkeys(evaluation.scores, 1.0)


def test_judge_that_cannot_be_read_fails_the_example(server: OpenAIServer) -> None:
    with OpenAIServer(answer=lambda body: "hm") as other:
        evaluation = run(open_at(server), load_metric("groundedness", open_at(other, "judge")), n=2)
    assert [row.score for row in evaluation.rows] == [None, None]
    assert "neither yes nor no; it says 'hm'" in str(evaluation.rows[0].error)
    assert [row.judge_calls for row in evaluation.rows] == [1, 1]


def test_further_metric_that_fails_is_missing_and_counted(server: OpenAIServer) -> None:
    asked = count()

    def often(example: Example, prediction: dspy.Prediction) -> float:
        if example.id == "q1":
            raise ValueError("no idea")
        next(asked)
        return 0.5

    evaluation = run(open_at(server), also=[made("guard", often), load_metric("chrf")])
    assert evaluation.failures == 0
    assert evaluation.also("guard") == {"q0": 0.5, "q2": 0.5, "q3": 0.5}
    assert (evaluation.also_failures("guard"), evaluation.also_failures("chrf")) == (1, 0)
    assert evaluation.rows[1].also_errors == {"guard": "ValueError: no idea"}
    assert evaluation.rows[1].also == {"chrf": 1.0}


def test_further_metrics_are_not_asked_where_the_example_failed(server: OpenAIServer) -> None:
    asked: list[str] = []
    guard = made("guard", lambda example, prediction: asked.append(example.id) or 1.0)
    evaluation = run(open_at(server), made("broken", broken), also=[guard])
    assert asked == []
    assert evaluation.also("guard") == {}
    assert evaluation.also_failures("guard") == 0


# What ends everything.


def test_refusing_endpoint_of_the_judge_ends_it(server: OpenAIServer) -> None:
    with OpenAIServer(key="another") as other:
        with pytest.raises(EndpointError):
            run(open_at(server), load_metric("groundedness", open_at(other, "judge")), n=20)
        assert len(other.requests) == 1


@pytest.mark.parametrize("where", ["program", "metric", "guard"])
def test_exhausted_budget_is_raised_even_where_it_is_swallowed(server: OpenAIServer, where: str) -> None:
    left = count(3, -1)

    def admit() -> None:
        if next(left) <= 0:
            raise BudgetExhaustedError("the budget is used up")

    counted = open_at(server, admit=admit)

    class Careless(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            with suppress(Exception):
                counted(f"{question} {threading.get_ident()}")
            return dspy.Prediction(answer="Ada")

    def careless(example: Example, prediction: dspy.Prediction) -> float:
        with suppress(Exception):
            counted(example.question)
        return 0.0

    metric = made("careless", careless) if where == "metric" else token_f1
    also = [made("careless", careless)] if where == "guard" else []
    build = Careless if where == "program" else program
    with pytest.raises(BudgetExhaustedError, match="the budget is used up"):
        run(open_at(server), metric, n=40, build=build, also=also)
    # Four threads were at work when it ended.
    assert len(server.requests) < 40


def test_a_swallowed_failure_of_one_call_ends_nothing(server: OpenAIServer) -> None:
    with OpenAIServer() as other:
        asked = open_at(other, "judge")
        asked("the endpoint lives")
        other.fail(500)

        def careless(example: Example, prediction: dspy.Prediction) -> float:
            with suppress(Exception):
                asked(f"judge {example.question}")
            return 1.0

        assert run(open_at(server), made("careless", careless)).failures == 0
        assert [logged.status for logged in other.requests].count(500) == 1


# Repeats.


@pytest.fixture
def drawing() -> Iterator[OpenAIServer]:
    """Answers with a new name each time, every second one right."""
    numbers, lock = count(), threading.Lock()

    def answer(body: dict[str, Any]) -> str:
        with lock:
            number = next(numbers)
        return f"[[ ## answer ## ]]\n{'Ada' if number % 2 == 0 else f'Bob {number}'}\n\n[[ ## completed ## ]]"

    with OpenAIServer(answer=answer) as server:
        yield server


def test_repeats_are_independent_and_kept(drawing: OpenAIServer, tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "responses.sqlite")
    lm = open_at(drawing, temperature=1.0, cache=cache)
    evaluation = run(lm, n=3, repeats=4)
    assert (len(drawing.requests), len(cache)) == (12, 12)
    assert {row.repeats for row in evaluation.rows} == {4}
    assert [row.calls for row in evaluation.rows] == [4, 4, 4]
    # Half of the twelve answers drawn are right, whoever drew them.
    assert sum(row.score or 0.0 for row in evaluation.rows) == pytest.approx(1.5)
    again = run(lm, n=3, repeats=4)
    assert len(drawing.requests) == 12
    assert again.scores == evaluation.scores
    assert [row.paid_calls for row in again.rows] == [0, 0, 0]


def test_the_first_repeat_is_the_evaluation_without_repeats(drawing: OpenAIServer, tmp_path: Path) -> None:
    lm = open_at(drawing, temperature=1.0, cache=ResponseCache(tmp_path / "responses.sqlite"))
    once = run(lm, n=3)
    repeated = run(lm, n=3, repeats=2)
    assert [row.answer for row in once.rows] == [row.answer for row in repeated.rows]
    assert len(drawing.requests) == 6


def test_repeats_of_a_program_that_samples_by_itself_do_not_meet(drawing: OpenAIServer, tmp_path: Path) -> None:
    lm = open_at(drawing, temperature=1.0, cache=ResponseCache(tmp_path / "responses.sqlite"))

    def build() -> dspy.Module:
        return dspy.BestOfN(program(), N=3, reward_fn=lambda inputs, prediction: 0.0, threshold=1.0)

    run(lm, n=2, repeats=3, build=build)
    assert len(drawing.requests) == 2 * 3 * 3


def test_at_temperature_zero_all_repeats_are_one(server: OpenAIServer, tmp_path: Path) -> None:
    evaluation = run(open_at(server, cache=ResponseCache(tmp_path / "responses.sqlite")), n=2, repeats=3)
    assert len(server.requests) == 2
    assert [(row.score, row.calls, row.paid_calls) for row in evaluation.rows] == [(1.0, 3, 1)] * 2


def test_failed_repeat_fails_the_example_and_ends_its_repeats(server: OpenAIServer) -> None:
    grades = iter([1.0, None, 1.0])

    def grade(example: Example, prediction: dspy.Prediction) -> float:
        value = next(grades)
        if value is None:
            raise ValueError("lost")
        return value

    guard = made("guard", lambda example, prediction: 1.0)
    [row] = run(open_at(server, temperature=1.0), made("grade", grade), n=1, repeats=3, also=[guard]).rows
    assert (row.score, row.error, row.repeats, row.calls) == (None, "ValueError: lost", 2, 2)
    assert row.also == row.also_errors == {}


def test_further_metrics_are_means_over_repeats_or_missing(server: OpenAIServer) -> None:
    grades, failing = iter([1.0, 0.5]), iter([1.0, None])

    def sometimes(example: Example, prediction: dspy.Prediction) -> float:
        if (value := next(failing)) is None:
            raise RagwrightError("not now")
        return value

    also = [made("guard", lambda example, prediction: next(grades)), made("other", sometimes)]
    [row] = run(open_at(server, temperature=1.0), n=1, repeats=2, also=also).rows
    assert row.also == {"guard": 0.75}
    assert row.also_errors == {"other": "RagwrightError: not now"}


def test_equal_answers_are_judged_once(server: OpenAIServer, tmp_path: Path) -> None:
    with OpenAIServer(answer=lambda body: rating(True, "so")) as other:
        cache = ResponseCache(tmp_path / "responses.sqlite")
        metric = load_metric("groundedness", open_at(other, "judge", temperature=1.0, cache=cache))
        [row] = run(open_at(server, temperature=1.0), metric, n=1, repeats=3).rows
        assert len(other.requests) == 1
    assert (row.score, row.calls, row.judge_calls) == (1.0, 3, 3)
