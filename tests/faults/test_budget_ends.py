"""A budget that ends, in calls, money, time or tokens: the study stops in time and says what it has."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from optimize.cli.launch import Launched, launch
from optimize.studies.check import check_study
from optimize.studies.study import Phases
from programs.errors import RagwrightError
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study

LONG_PROMPT = 2000


class Dear(OpenAIServer):
    """Says that each prompt had 2,000 tokens: 0.0003 USD at the price of gpt-4o-mini."""

    def _completion(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        found = super()._completion(path, body)
        found["usage"] |= {"prompt_tokens": LONG_PROMPT, "total_tokens": LONG_PROMPT + 1, "completion_tokens": 1}
        return found


def started(file: Path, runs: Path) -> Launched:
    return launch(check_study(file), runs, Phases(), None)


def ends_without_a_verdict(file: Path, runs: Path, server: OpenAIServer) -> Launched:
    """Start the study, and again; what must hold of every budget that carries no verdict."""
    first = started(file, runs)
    outcome, asked = first.outcome, len(server.requests)
    assert outcome.verdict is None and outcome.winner is None and outcome.test_openings == 0
    assert any(warning.startswith("nothing could be confirmed: ") for warning in outcome.warnings), outcome.warnings
    assert outcome.trials and outcome.best_trial is not None and outcome.best_trial.estimate is not None
    assert first.export is None and not first.run.export.exists()
    assert not [unit for unit, _ in first.run.finished() if unit.startswith(("confirm-", "test-"))]
    report = first.report.with_suffix(".md").read_text(encoding="utf-8")
    assert "nothing could be confirmed" in report.lower()
    assert f"{outcome.best_trial.summary.score:.3f}" in report
    again = started(file, runs)
    assert len(server.requests) == asked
    assert again.outcome.trials == outcome.trials
    return first


def test_ten_calls(villages: Path, runs: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=read_villages) as server:
        file = write_study(tmp_path / "study.yaml", villages, server.url, budget={"lm_calls": 10})
        outcome = ends_without_a_verdict(file, runs, server).outcome
        assert len(server.requests) <= 10
    assert outcome.spent.paid_calls == len(server.requests) <= outcome.spent.calls <= 10


def test_a_cent(villages: Path, runs: Path, tmp_path: Path) -> None:
    with Dear(answer=read_villages) as server:
        lm = {"model": "openai/gpt-4o-mini", "api_base": server.url, "retries": 0, "threads": 4}
        file = write_study(tmp_path / "study.yaml", villages, server.url, lm=lm, budget={"lm_calls": 260, "usd": 0.01})
        outcome = ends_without_a_verdict(file, runs, server).outcome
        assert outcome.spent.usd is not None and 0.007 < outcome.spent.usd <= 0.01
        assert len(server.requests) == outcome.spent.paid_calls <= outcome.spent.calls < 40


def test_tokens(villages: Path, runs: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=read_villages) as server:
        budget = {"lm_calls": 260, "tokens": 3000}
        file = write_study(tmp_path / "study.yaml", villages, server.url, budget=budget)
        spent = ends_without_a_verdict(file, runs, server).outcome.spent
    # A call that is let in counts by the mean so far, and one with demos takes more: at most a call a thread too much.
    assert 2000 < spent.prompt_tokens + spent.completion_tokens <= 3000 + 4 * 150


def test_seconds(villages: Path, runs: Path, tmp_path: Path) -> None:
    """Eight seconds, where the verdict alone would take nine."""
    with OpenAIServer(answer=read_villages, delay_s=0.5) as server:
        file = write_study(tmp_path / "study.yaml", villages, server.url, budget={"lm_calls": 260, "minutes": 8 / 60})
        check_study(file)
        begun = time.monotonic()
        outcome = ends_without_a_verdict(file, runs, server).outcome
        # The second start opens everything anew, and the report and MLflow take their time, too.
        assert outcome.spent.seconds < 10
        assert time.monotonic() - begun < 25


@pytest.mark.parametrize("budget", [{"lm_calls": 260, "tokens": 300}, {"lm_calls": 3}, {"lm_calls": 1}])
def test_less_than_a_trial(villages: Path, runs: Path, tmp_path: Path, budget: dict[str, int]) -> None:
    """Not even the baseline: either one line says so, or an outcome without trials."""
    with OpenAIServer(answer=read_villages) as server:
        file = write_study(tmp_path / "study.yaml", villages, server.url, budget=budget)
        try:
            found = started(file, runs)
        except RagwrightError as error:
            assert "budget" in str(error) and "\n" not in str(error)
        else:
            assert found.outcome.winner is None and found.export is None
            assert any("the budget ended before the first trial" in one for one in found.outcome.warnings)
        assert len(server.requests) <= budget["lm_calls"]


def test_a_verdict_that_takes_more_than_was_kept_for_it(villages: Path, runs: Path, tmp_path: Path) -> None:
    """What is reserved follows from the search, whose prompts say nothing about those of the test."""

    class Growing(OpenAIServer):
        def _completion(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            found = super()._completion(path, body)
            if any(question in str(body) for question in tested):
                found["usage"] |= {"prompt_tokens": LONG_PROMPT, "total_tokens": LONG_PROMPT + 1}
            return found

    with Growing(answer=read_villages) as server:
        budget = {"lm_calls": 260, "tokens": 35_000}
        file = write_study(tmp_path / "study.yaml", villages, server.url, budget=budget)
        tested = [example.question for example in check_study(file).allocation.test]
        found = started(file, runs)
        assert found.outcome.finalists == () and found.outcome.verdict is None and found.export is None
        (warning,) = [one for one in found.outcome.warnings if "could not be finished" in one]
        assert "budget.tokens" in warning
        assert found.outcome.best_trial is not None and found.report.is_file()
        asked = len(server.requests)
        # What was answered is kept, and more budget finishes what was begun.
        write_study(file, villages, server.url, budget={"lm_calls": 260, "tokens": 10**7})
        assert started(file, runs).outcome.verdict is not None
        assert len(server.requests) > asked
        prompts = [str(request.body) for request in server.requests]
        assert len(set(prompts)) == len(prompts)


def test_more_budget_then_gives_the_verdict(villages: Path, runs: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=read_villages) as server:
        file = tmp_path / "study.yaml"
        write_study(file, villages, server.url, budget={"lm_calls": 40})
        less = started(file, runs).outcome
        assert less.verdict is None
        write_study(file, villages, server.url, budget={"lm_calls": 260})
        more = started(file, runs)
        assert more.outcome.verdict is not None
        assert more.outcome.fingerprint == less.fingerprint
        prompts = [str(request.body) for request in server.requests]
        assert len(set(prompts)) == len(prompts)
