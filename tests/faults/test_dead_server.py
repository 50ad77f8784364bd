"""A server that dies half-way stops the work; one that only fails now and then does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import programs.gate
from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation, evaluate
from optimize.metrics.table import load_metric
from optimize.runs.run_dir import RunDir
from programs.errors import EndpointError
from programs.lm import open_lm, parse_lm
from programs.metered_lm import MeteredLM
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from tests.faults.mortal_server import CLOSED, DEATHS, DROPPED, GATEWAY, HANGING, MortalServer

QUESTIONS = tuple(Example(f"q{number}", f"What is question {number}?", ("forty-two",)) for number in range(5000))
SILENT = (CLOSED, DROPPED, HANGING)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.gate, "PAUSE_S", 0.01)


class Rungs:
    """Evaluates a small program rung by rung, each kept only when it is whole, as a study does."""

    def __init__(self, server: MortalServer, folder: Path, threads: int = 4, **settings: Any) -> None:
        spec = parse_lm(
            {"model": "openai/small", "api_base": server.url, "retries": 0, "timeout_s": 5, "threads": threads}
            | settings
        )
        self.lm: MeteredLM = open_lm(spec, cache=ResponseCache(folder / "responses.sqlite"))
        self.run = RunDir(folder / "run")
        self.threads = threads

    def rung(self, number: int, size: int) -> Evaluation:
        examples = QUESTIONS[number * size : (number + 1) * size]

        def compute(start: int) -> Evaluation:
            with dspy.context(lm=self.lm, adapter=FORMATS["compact"]()):
                program = dspy.Predict("question -> answer")
                found = evaluate(program, examples[start:], load_metric("token_f1"), self.threads)
            self.lm.engine.confirm()
            return found

        return self.run.evaluation(f"rung-{number:04}", len(examples), compute)

    def kept(self) -> list[Evaluation]:
        return [evaluation for _, evaluation in self.run.finished()]


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("endpoint", ["chat", "completion"])
@pytest.mark.parametrize(("threads", "answered"), [(1, 11), (4, 8), (8, 9)])
def test_a_server_that_dies_stops_the_work_within_one_rung(
    tmp_path: Path, death: str, endpoint: str, threads: int, answered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4
    if death == HANGING:
        monkeypatch.setattr(programs.gate, "PATIENCE_S", 0.0)
    with MortalServer(death, lives=answered, hangs_s=2.0) as server:
        rungs = Rungs(server, tmp_path, threads, endpoint=endpoint, timeout_s=0.5 if death == HANGING else 5)
        with pytest.raises(EndpointError) as caught:
            for number in range(5):
                rungs.rung(number, size)
        for _ in range(3):
            with pytest.raises(EndpointError, match="no longer answers"):
                rungs.rung(4, size)
        assert server.asked_dead <= programs.gate.IN_A_ROW + threads
    assert "127.0.0.1" in str(caught.value) and "start again: what was done is kept" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [evaluation.failures for evaluation in rungs.kept()] == [0] * (answered // size)


@pytest.mark.parametrize("death", [DROPPED, GATEWAY])
def test_what_was_done_before_it_died_is_not_asked_again(tmp_path: Path, death: str) -> None:
    with MortalServer(death, lives=10) as server:
        with pytest.raises(EndpointError):
            Rungs(server, tmp_path, threads=1).rung(0, 16)
        server.revive()
        evaluation = Rungs(server, tmp_path, threads=1).rung(0, 16)
        assert server.answered == 16
    assert evaluation.failures == 0
    assert evaluation.mean()[0] == 1.0


@pytest.mark.parametrize("death", SILENT)
def test_with_retries_a_dead_server_is_given_up_too(
    tmp_path: Path, death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.gate, "PATIENCE_S", 0.0)
    with MortalServer(death, lives=6, hangs_s=2.0) as server:
        rungs = Rungs(server, tmp_path, threads=2, retries=1, timeout_s=0.5)
        with pytest.raises(EndpointError, match="no longer answers"):
            rungs.rung(0, 8)
    assert rungs.kept() == []


def test_a_server_that_rests_for_a_moment_costs_the_calls_that_met_it(tmp_path: Path) -> None:
    with MortalServer(DROPPED, lives=5) as server:
        rungs = Rungs(server, tmp_path, threads=1)
        respond = server._respond

        def back_after_three(*call: Any) -> Any:
            if server.asked_dead == 3:
                server.revive()
            return respond(*call)

        server._respond = back_after_three  # type: ignore[method-assign]
        evaluation = rungs.rung(0, 20)
    assert evaluation.failures == 1
    assert evaluation.valid


@pytest.mark.parametrize(("endpoint", "threads"), [("chat", 8), ("completion", 1)])
def test_thirty_percent_failures_are_failures_and_no_zeros(tmp_path: Path, endpoint: str, threads: int) -> None:
    with MortalServer(failing=0.3) as server:
        rungs = Rungs(server, tmp_path, threads, endpoint=endpoint)
        evaluations = [rungs.rung(number, 10) for number in range(12)]
    rows = [row for evaluation in evaluations for row in evaluation.rows]
    failed = [row for row in rows if row.error is not None]
    assert 20 <= len(failed) <= 52
    assert all(row.score is None and row.answer is None for row in failed)
    assert {str(row.error).split(":")[0] for row in failed} == {"LMServerError"}
    assert all(row.score == 1.0 for row in rows if row.error is None)
    for evaluation in evaluations:
        assert evaluation.failures == sum(row.error is not None for row in evaluation.rows)
        assert evaluation.valid is (evaluation.failures == 0)
        assert evaluation.failures == 10 or evaluation.mean()[0] == 1.0
    assert not all(evaluation.valid for evaluation in evaluations)


def test_every_call_is_counted_the_gates_own_too(tmp_path: Path) -> None:
    seen: list[bool] = []
    with MortalServer(failing=0.3) as server:
        spec = parse_lm({"model": "openai/small", "api_base": server.url, "retries": 0, "threads": 4})
        lm = open_lm(spec, on_call=lambda call: seen.append(call.error is None))
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            for start in range(0, 60, 6):
                program = dspy.Predict("question -> answer")
                evaluate(program, QUESTIONS[start : start + 6], load_metric("token_f1"), 4)
                lm.engine.confirm()
    assert len(seen) == len(server.requests)
    assert (seen.count(True), seen.count(False)) == (server.answered, server.failed)
