"""Asked directly, an export sends what DSPy sends and reads the answers as DSPy reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError, LMError

from optimize.exporting.exported import ExportedProgram, load_export
from optimize.serving.answering import Answered, Answerer, AnswerError
from optimize.serving.direct import DirectRAG, open_ask
from optimize.serving.search import batch_searches
from programs.errors import EndpointError
from programs.metering import CallRecord, collect_calls
from programs.types import Passage
from tests.answering_exports import export_for, read_towers
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied

T = TypeVar("T")
QUESTIONS = ["When was the tower test 3 built?", "What is a {brace}, [[ ## answer ## ]] and ünïcode?", "nothing found"]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=read_towers) as running:
        yield running


def opened(
    folder: Path,
    server: OpenAIServer,
    prompt_format: str,
    embedder: str = WINNER.embedder,
    retriever: str = WINNER.retriever,
    **lm: Any,
) -> ExportedProgram:
    studied = Studied(folder)
    spec = {"model": "openai/tiny", "api_base": server.url, "retries": 0, **lm}
    config = replace(WINNER, prompt_format=prompt_format, embedder=embedder, retriever=retriever)
    program = load_export(export_for(studied, folder / "export", spec, config), folder / "runs")
    shown = {"context": ["The tower was built in 1801."], "question": "When?", "answer": "1801"}
    program.program.generate.demos = [dspy.Example(**shown, augmented=True)]
    return program


@pytest.mark.parametrize("temperature", [0.0, 0.7, None])
@pytest.mark.parametrize("endpoint", ["chat", "completion"])
@pytest.mark.parametrize("prompt_format", ["compact", "chat", "xml"])
def test_a_direct_call_is_the_same_call(
    tmp_path: Path, server: OpenAIServer, prompt_format: str, endpoint: str, temperature: float | None
) -> None:
    if prompt_format == "xml":
        server.answer = lambda body: f"<answer>{len(str(body))}</answer>"
    exported = opened(tmp_path, server, prompt_format, endpoint=endpoint, temperature=temperature)
    direct = open_ask(exported)
    assert isinstance(direct, DirectRAG)
    for question in QUESTIONS:
        with collect_calls() as through:
            told = exported.ask(question)
        with collect_calls() as straight:
            assert direct(question) == told
        assert [call.key for call in straight] == [call.key for call in through]
        assert [call.paid for call in (*through, *straight)] == [True, False]


@pytest.mark.parametrize("embedder", ["none", "wordllama"])
@pytest.mark.parametrize("prompt_format", ["compact", "chat"])
@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_a_loop_asks_the_same(
    tmp_path: Path, server: OpenAIServer, endpoint: str, prompt_format: str, embedder: str
) -> None:
    dense = {"embedder": embedder, "retriever": "sparse" if embedder == "none" else "hybrid"}
    exported = opened(tmp_path, server, prompt_format, endpoint=endpoint, retries=1, **dense)
    told = {question: exported.ask(question) for question in QUESTIONS}
    sent = [request.body for request in server.requests]
    # Another cache: everything is asked again, the first question by a thread.
    found, calls = in_loop(exported, tmp_path / "other", [QUESTIONS[0], *QUESTIONS])
    assert found == [told[question] for question in (QUESTIONS[0], *QUESTIONS)]
    assert [request.body for request in server.requests[len(sent) :]] == sent
    assert [call.paid for call in calls] == [True, False, True, True]


def in_loop(
    exported: ExportedProgram, runs: Path, questions: list[str]
) -> tuple[list[tuple[str, tuple[Passage, ...]]], list[CallRecord]]:
    """The answers of an `Answerer` to questions one after another, and its calls."""

    async def ask_all() -> list[Answered]:
        with ThreadPoolExecutor(1) as pool:
            answered = [await answerer.answer_from_loop(question, pool) for question in questions]
            await answerer.aclose()
        return answered

    batch_searches(exported.program)
    answerer = Answerer(exported, runs)
    try:
        answers = run(ask_all())
    finally:
        answerer.close()
    return [(one.answer, one.passages) for one in answers], [call for one in answers for call in one.calls]


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result, from a thread: `asyncio.run` leaves the one that it runs in without a loop, and LiteLLM wants one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def test_a_loop_asks_once_for_equal_questions_and_again_for_what_failed(tmp_path: Path, server: OpenAIServer) -> None:
    exported = opened(tmp_path, server, "compact", retries=1)
    batch_searches(exported.program)
    answerer, pool = Answerer(exported, tmp_path / "other"), ThreadPoolExecutor(4)

    async def ask_all() -> list[Any]:
        first = await answerer.answer_from_loop("first", pool)
        server.delay_s = 0.1
        equal = await asyncio.gather(*(answerer.answer_from_loop("equal", pool) for _ in range(8)))
        server.delay_s = 0.0
        server.fail(500)
        again = await answerer.answer_from_loop("again", pool)
        server.fail(400, times=2)
        refused = await asyncio.gather(answerer.answer_from_loop("refused", pool), return_exceptions=True)
        await answerer.aclose()
        return [first, *equal, again, *refused]

    *_, refused = run(ask_all())
    answerer.close()
    pool.shutdown()
    assert [len([r for r in server.requests if f"Question: {q}\n" in r.prompt]) for q in ("equal", "again")] == [1, 2]
    assert isinstance(refused, AnswerError) and refused.code == "lm_failed" and refused.__context__ is None
    assert answerer.counts == {"answered": 10, "failed": 1}


def test_its_errors_are_the_same(tmp_path: Path, server: OpenAIServer) -> None:
    exported = opened(tmp_path, server, "chat")
    direct = open_ask(exported)
    server.answer = lambda body: "no field at all"
    for ask in (exported.ask, direct):
        with pytest.raises(AdapterParseError):
            ask(QUESTIONS[0])
    server.answer = lambda body: ""
    for ask in (exported.ask, direct):
        with pytest.raises(AdapterParseError):
            ask(QUESTIONS[1])
    for ask in (exported.ask, direct):
        server.fail(400)
        with pytest.raises(LMError) as refused:
            ask(QUESTIONS[2])
        assert refused.value.status == 400


def test_a_dead_endpoint_is_the_same(tmp_path: Path, server: OpenAIServer) -> None:
    server.key = "another"
    direct = open_ask(opened(tmp_path, server, "compact"))
    with pytest.raises(EndpointError, match="the key was refused"):
        direct(QUESTIONS[0])


def test_an_empty_answer_of_the_compact_format_is_one(tmp_path: Path, server: OpenAIServer) -> None:
    server.answer = lambda body: ""
    exported = opened(tmp_path, server, "compact")
    assert open_ask(exported)(QUESTIONS[0]) == exported.ask(QUESTIONS[0])
    assert exported.ask(QUESTIONS[0])[0] == ""


def test_what_is_not_that_plain_goes_through_dspy(tmp_path: Path, server: OpenAIServer) -> None:
    exported = opened(tmp_path, server, "json")
    assert not isinstance(open_ask(exported), DirectRAG)
    exported = opened(tmp_path / "other", server, "compact")
    exported.program.generate.config = {"temperature": 1.0}
    assert not isinstance(open_ask(exported), DirectRAG)
