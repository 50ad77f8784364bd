"""A server of which many calls fail, and one that dies in the middle of a study and comes back."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import programs.gate
from optimize.evaluation.outcome import Outcome
from optimize.runs.progress import Silence
from optimize.studies.check import check_study
from optimize.studies.study import Study
from programs.errors import EndpointError
from tests.faults.mortal_server import DROPPED, GATEWAY, MortalServer
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study

THREADS = 4


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.gate, "PAUSE_S", 0.01)


def study_of(file: Path, runs: Path) -> Study:
    checked = check_study(file)
    return Study(checked.study, checked.dataset, checked.spec, runs, Silence())


def rows_of(study: Study) -> list[tuple[str, float | None, str | None]]:
    return [(unit, row.score, row.error) for unit, found in study.run.finished() for row in found.rows]


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_calls_that_fail_are_no_zeros_and_what_they_hit_does_not_win(
    villages: Path, tmp_path: Path, share: float
) -> None:
    with MortalServer(failing=share, answer=read_villages) as server:
        study = study_of(write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs")
        outcome = study.execute()
        assert server.failed > 0
    rows = rows_of(study)
    assert all((score is None) == (error is not None) for _, score, error in rows)
    failed = [unit for unit, _, error in rows if error is not None]
    assert failed
    if share == 0.3:
        # Some are of the gate's own probes.
        assert len(failed) <= server.failed and len(failed) > 0.15 * len(rows)
    if outcome.winner is not None:
        point = (outcome.winner.config, outcome.winner.candidate)
        (trial,) = [entry for entry in outcome.trials if (entry.config, entry.candidate) == point]
        assert trial.summary.valid and outcome.winner.summary.valid
    else:
        assert outcome.verdict is None or outcome.kept_baseline
    best = outcome.best_trial
    assert best is None or best.summary.valid


def test_where_every_trial_is_hit_there_is_no_winner_and_no_confirm(villages: Path, tmp_path: Path) -> None:
    """Two of every four questions fail in the format that the space has; the baseline has another."""

    class Partial(OpenAIServer):
        def _respond(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
            prompt = body["messages"][-1]["content"]
            if "[[ ## " not in prompt and any(prompt.rstrip().endswith(f"{one}\nAnswer:") for one in unlucky):
                return 500, {"error": {"message": "a bad moment"}}
            return super()._respond(path, body, key)

    with Partial(answer=read_villages) as server:
        baseline = {"chunk_size": 64, "top_k": 3, "prompt_format": "chat"}
        file = write_study(tmp_path / "study.yaml", villages, server.url, baseline=baseline)
        unlucky = [e.question for n, e in enumerate(check_study(file).allocation.search) if n % 4 in (1, 2)]
        study = study_of(file, tmp_path / "runs")
        outcome = study.execute()
    assert outcome.baseline.summary.valid
    assert outcome.trials and not any(entry.summary.valid for entry in outcome.trials)
    assert outcome.winner is None and outcome.verdict is None and outcome.test_openings == 0
    assert any("too much failed" in warning for warning in outcome.warnings)
    assert not [unit for unit, _ in study.run.finished() if unit.startswith(("confirm", "test"))]
    # Each was given up after one step.
    assert {(entry.summary.n, entry.summary.failures) for entry in outcome.trials} == {(4, 2)}


def points(outcome: Outcome) -> list[tuple[str, str, float, int]]:
    return [(entry.unit, json.dumps(entry.params), entry.summary.score, entry.summary.n) for entry in outcome.trials]


@pytest.mark.parametrize(("death", "lives"), [(DROPPED, 30), (GATEWAY, 75), (DROPPED, 5)])
def test_a_server_that_dies_stops_the_study_and_one_that_returns_lets_it_go_on(
    villages: Path, tmp_path: Path, death: str, lives: int
) -> None:
    with OpenAIServer(answer=read_villages) as healthy:
        study = study_of(write_study(tmp_path / "healthy.yaml", villages, healthy.url), tmp_path / "undisturbed")
        undisturbed, once = study.execute(), len(healthy.requests)
    with MortalServer(death, lives=lives, answer=read_villages) as server:
        file = write_study(tmp_path / "study.yaml", villages, server.url)
        # How long retrieval takes is measured, and decides between points that are else equal.
        (tmp_path / "runs" / "cache").mkdir(parents=True)
        shutil.copy(tmp_path / "undisturbed" / "cache" / "latencies.json", tmp_path / "runs" / "cache")
        stopped = study_of(file, tmp_path / "runs")
        with pytest.raises(EndpointError) as problem:
            stopped.execute()
        assert "\n" not in str(problem.value) and server.url.split("/")[2] in str(problem.value)
        assert "start again: what was done is kept" in str(problem.value)
        # Within the step that was under way: what was answered is kept, what was not is no failure.
        assert server.asked_dead <= programs.gate.IN_A_ROW + THREADS
        assert all(error is None for _, _, error in rows_of(stopped))
        assert not (stopped.run.path / "outcome.json").exists()
        server.revive()
        outcome = study_of(file, tmp_path / "runs").execute()
        answered = Counter(json.dumps(request.body) for request in server.requests if request.status == 200)
    assert points(outcome) == points(undisturbed)
    assert outcome.difference == undisturbed.difference and outcome.verdict == undisturbed.verdict
    assert server.answered == once
    assert max(answered.values()) == 1
    assert outcome.spent.calls == undisturbed.spent.calls
