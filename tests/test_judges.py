from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.data.example import Example
from optimize.metrics.judges import JUDGES
from optimize.metrics.judges_mlflow import read_rating
from optimize.metrics.table import load_metric
from programs.errors import BudgetExhaustedError, EndpointError, RagwrightError
from programs.lm import open_lm, parse_lm
from programs.metering import collect_calls
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from tests.judge_model import fields, judge, passage, rating
from tests.openai_server import OpenAIServer

ASKED = Example("q1", "Who wrote it?", ("Ada Lovelace", "Lovelace"))
SAID = dspy.Prediction(answer="Lovelace did", passages=(passage("Ada Lovelace wrote it."), passage("It rained.")))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=judge) as server:
        yield server


def lm_of(server: OpenAIServer, **more: Any) -> dspy.LM:
    return open_lm(parse_lm({"model": "openai/judge", "api_base": server.url, "retries": 0}), role="judge", **more)


@pytest.mark.parametrize(
    ("reply", "yes", "why"),
    [
        (rating(True, "it says so"), True, "it says so"),
        (rating(False, "it\ndoes not"), False, "it does not"),
        (f"```json\n{rating(False, 'no')}\n```", False, "no"),
        (f"Here you are: {rating(True, 'so')} I hope it helps.", True, "so"),
        ('{"rationale": "It says "Ada" there", "result": "yes"}', True, ""),
        ('{"rationale": "a\nline", "result": "No"}', False, "a line"),
        ('{"result": "yes"}', True, ""),
        ('{"rationale": 3, "result": " YES. "}', True, ""),
        ("Yes.", True, ""),
        (" **no**\n", False, ""),
    ],
)
def test_rating_is_read(reply: str, yes: bool, why: str) -> None:
    assert read_rating(reply, "groundedness") == (yes, why)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot say.",
        "Yes and no",
        '{"rationale": "hm", "result": "unknown"}',
        '{"rationale": "hm", "result": "yes|no"}',
        '{"rationale": "hm", "result": null}',
        '{"rationale": "hm"}',
        '{"rationale": "the quote "x", "result": "yes"} {"rationale": "", "result": "no"}',
        '["yes"]',
    ],
)
def test_reply_without_a_rating_is_a_failure(reply: str) -> None:
    with pytest.raises(RagwrightError, match="the judge rated groundedness neither yes nor no; it says"):
        read_rating(reply, "groundedness")


@pytest.mark.parametrize("name", JUDGES)
@pytest.mark.parametrize("reply", ["I would rather not say.", "", fields(recall="much", precision="some")])
def test_judge_that_says_nothing_of_use_is_a_failure_and_no_zero(name: str, reply: str) -> None:
    with OpenAIServer(answer=lambda body: reply) as server, pytest.raises(RagwrightError) as error:
        load_metric(name, lm_of(server))(ASKED, SAID)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("share", ["nan", "85", "-0.5", "inf"])
def test_number_that_is_no_share_is_a_failure(share: str) -> None:
    reply = fields(reasoning="so", recall=share, precision="0.5")
    with OpenAIServer(answer=lambda body: reply) as server, pytest.raises(RagwrightError, match="no share in"):
        load_metric("semantic_f1", lm_of(server))(ASKED, SAID)


def test_dspy_shares_become_their_f1_with_what_the_judge_thought() -> None:
    reply = fields(reasoning="The name is cut.", recall="0.5", precision="1.0")
    with OpenAIServer(answer=lambda body: reply) as server:
        score = load_metric("semantic_f1", lm_of(server))(ASKED, SAID)
    assert score == pytest.approx(2 / 3)
    assert score.feedback == (
        "the judge says: recall 0.50, precision 1.00; The name is cut. "
        "expected one of 'Ada Lovelace', 'Lovelace'; got 'Lovelace did'"
    )


def test_complete_and_grounded_names_the_part_that_is_missing(server: OpenAIServer) -> None:
    metric = load_metric("complete_and_grounded", lm_of(server))
    invented = metric(ASKED, dspy.Prediction(answer="Ada Lovelace", passages=(passage("It rained."),)))
    assert invented == 0
    assert "completeness 1.00, groundedness 0.00" in invented.feedback
    short = metric(ASKED, dspy.Prediction(answer="it rained", passages=(passage("It rained."),)))
    assert "completeness 0.00, groundedness 1.00" in short.feedback


def test_prompts_are_those_of_mlflow(server: OpenAIServer) -> None:
    from mlflow.genai.judges.prompts import context_sufficiency, correctness, groundedness, relevance_to_query, safety

    context = "Ada Lovelace wrote it.\n\nIt rained."
    question, answer = ASKED.question, "Lovelace did"
    expected = {
        # The gold answer with most words in common.
        "correctness": correctness.get_prompt(request=question, response=answer, expected_response="Lovelace"),
        "groundedness": groundedness.get_prompt(request=question, response=answer, context=context),
        "relevance_to_query": relevance_to_query.get_prompt(request=question, context=answer),
        "retrieval_sufficiency": context_sufficiency.get_prompt(
            request=question, context=context, expected_response="Ada Lovelace"
        ),
        "safety": safety.get_prompt(content=answer),
    }
    for name in expected:
        load_metric(name, lm_of(server))(ASKED, SAID)
    assert [logged.prompt for logged in server.requests] == list(expected.values())
    assert set(expected) <= set(JUDGES)


def test_a_rating_comes_with_its_reason(server: OpenAIServer) -> None:
    score = load_metric("groundedness", lm_of(server))(ASKED, SAID)
    assert score == 0
    assert score.feedback == (
        "the judge finds no groundedness: looked for 'Lovelace did'; "
        "expected one of 'Ada Lovelace', 'Lovelace'; got 'Lovelace did'"
    )
    said = dspy.Prediction(answer="Ada Lovelace", passages=SAID.passages)
    assert load_metric("groundedness", lm_of(server))(ASKED, said).feedback == (
        "the judge finds groundedness: looked for 'Ada Lovelace'"
    )


@pytest.mark.parametrize("name", JUDGES)
def test_every_call_passes_the_meter(name: str, server: OpenAIServer, tmp_path: Path) -> None:
    metric = load_metric(name, lm_of(server, cache=ResponseCache(tmp_path / "responses.sqlite")))
    with collect_calls() as calls:
        assert metric(ASKED, SAID) == metric(ASKED, SAID)
    assert {call.role for call in calls} == {"judge"}
    assert [call.paid for call in calls] == [True] * metric.judge_calls + [False] * metric.judge_calls
    assert len(server.requests) == metric.judge_calls


@pytest.mark.parametrize("name", JUDGES)
def test_budget_and_endpoint_end_judging(name: str, server: OpenAIServer) -> None:
    def admit() -> None:
        raise BudgetExhaustedError("used up")

    with pytest.raises(BudgetExhaustedError, match="used up"):
        load_metric(name, lm_of(server, admit=admit))(ASKED, SAID)
    server.fail(401)
    with pytest.raises(EndpointError):
        load_metric(name, lm_of(server))(ASKED, SAID)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", JUDGES)
def test_the_pipelines_own_settings_do_not_reach_the_judge(name: str, server: OpenAIServer) -> None:
    metric = load_metric(name, lm_of(server))
    plain = metric(ASKED, SAID)
    first = [logged.body for logged in server.requests]
    server.requests.clear()
    with OpenAIServer(answer=lambda body: "the task") as task:
        lm = open_lm(parse_lm({"model": "openai/task", "api_base": task.url}))
        with dspy.context(lm=lm, adapter=FORMATS["compact"](), trace=[]):
            assert metric(ASKED, SAID) == plain
            # An optimizer makes demos of what is in there.
            assert dspy.settings.trace == []
        assert task.requests == []
    assert [logged.body for logged in server.requests] == first
