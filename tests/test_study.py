from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.outcome import Entry, Outcome
from optimize.runs.progress import Silence
from optimize.studies.check import check_study
from optimize.studies.study import Phases, Study
from programs.errors import EndpointError, RagwrightError
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study

ALL = Phases()


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=read_villages) as running:
        yield running


class Listener:
    def __init__(self) -> None:
        self.units: list[str] = []
        self.messages: list[list[dict[str, Any]]] = []

    def entry(self, entry: Entry, evaluation: Evaluation, messages: Callable[[], list[dict[str, Any]]]) -> None:
        self.units.append(entry.unit)
        self.messages.append(messages())
        assert len(evaluation.rows) == entry.summary.n


def run(file: Path, runs: Path, listener: Listener | None = None, phases: Phases = ALL) -> Outcome:
    checked = check_study(file)
    study = Study(checked.study, checked.dataset, checked.spec, runs, Silence(), listener, phases)
    return study.execute()


def test_the_whole_loop_ends_with_a_verdict(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    listener = Listener()
    outcome = run(write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs", listener)
    assert outcome.verdict in ("better", "not shown better", "worse", "underpowered")
    assert len(outcome.trials) >= 3
    assert outcome.winner is not None and outcome.test_winner is not None and outcome.test_baseline is not None
    assert outcome.test_winner.config == outcome.winner.config
    assert len({entry.params["candidate"] for entry in outcome.trials}) == 2
    assert outcome.spent.calls <= 260
    assert outcome.spent.paid_calls == len(server.requests)
    assert {"baseline", "trial-0000"} <= set(listener.units)
    assert Outcome.from_json(outcome.as_json()) == outcome


def test_points_are_scored_once(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    outcome = run(write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs")
    points = [(entry.config, entry.candidate) for entry in outcome.trials]
    assert len(set(points)) == len(points)


def test_phases_look_at_different_questions(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", villages, server.url)
    ids = check_study(file).allocation.ids()
    groups = check_study(file).allocation.groups
    seen = [{groups[example_id] for example_id in ids[phase]} for phase in ("train", "search", "confirm", "test")]
    assert all(one.isdisjoint(other) for i, one in enumerate(seen) for other in seen[:i])


def test_a_finished_study_asks_nothing_again(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", villages, server.url)
    first = run(file, tmp_path / "runs")
    asked = len(server.requests)
    again = run(file, tmp_path / "runs")
    assert len(server.requests) == asked
    assert again.trials == first.trials and again.difference == first.difference
    assert again.test_openings == 1


def test_more_budget_goes_on_with_the_same_study(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    less = run(write_study(tmp_path / "study.yaml", villages, server.url, budget={"lm_calls": 150}), tmp_path / "runs")
    more = run(write_study(tmp_path / "study.yaml", villages, server.url, budget={"lm_calls": 300}), tmp_path / "runs")
    assert more.fingerprint == less.fingerprint
    assert sum(trial.summary.n for trial in more.trials) > sum(trial.summary.n for trial in less.trials)
    for before, after in zip(less.trials, more.trials, strict=False):
        assert (after.config, after.candidate) == (before.config, before.candidate)
        assert after.summary.n >= before.summary.n
    assert len({json.dumps(request.body) for request in server.requests}) == len(server.requests)
    # The verdict on less was paid for, too.
    assert more.spent.calls <= 300


def test_another_seed_is_another_study(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    one = run(write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs")
    other = run(write_study(tmp_path / "study.yaml", villages, server.url, seed=1), tmp_path / "runs")
    assert other.fingerprint != one.fingerprint
    assert other.test_openings == 2


def test_compile_compares_candidates_under_the_baseline(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", villages, server.url)
    outcome = run(file, tmp_path / "runs", phases=Phases(search=False))
    assert {entry.config for entry in outcome.trials} == {outcome.baseline.config}
    assert all(entry.candidate != outcome.baseline.candidate for entry in outcome.trials)


def test_sweep_leaves_the_prompts_as_they_are(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", villages, server.url)
    outcome = run(file, tmp_path / "runs", phases=Phases(compile=False))
    assert {entry.candidate for entry in outcome.trials} == {outcome.baseline.candidate}


def test_an_empty_baseline_voids_the_comparison(villages: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=lambda body: "") as silent:
        outcome = run(write_study(tmp_path / "study.yaml", villages, silent.url), tmp_path / "runs")
    assert outcome.verdict is None
    assert any("void" in warning for warning in outcome.warnings)


def test_failures_are_no_zeros_and_cannot_win(villages: Path, tmp_path: Path) -> None:
    told: list[bool] = []

    def answer(body: dict[str, Any]) -> str:
        if len(flaky.requests) >= 30 and not told:
            told.append(True)
            flaky.fail(500, times=6)
        return read_villages(body)

    with OpenAIServer(answer=answer) as flaky:
        outcome = run(write_study(tmp_path / "study.yaml", villages, flaky.url, trials=5), tmp_path / "runs")
    broken = [entry for entry in outcome.trials if not entry.summary.valid]
    assert broken
    # The other errors met the probes that tell a bad moment from a dead endpoint.
    assert 1 <= sum(entry.summary.failures for entry in broken) <= 6
    assert outcome.winner is not None
    assert (outcome.winner.config, outcome.winner.candidate) not in [(e.config, e.candidate) for e in broken]


def test_a_wrong_key_is_one_request_and_is_never_shown(
    villages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-and-secret")
    with OpenAIServer(answer=read_villages, key="right") as strict:
        with pytest.raises(EndpointError) as problem:
            run(write_study(tmp_path / "study.yaml", villages, strict.url), tmp_path / "runs")
        assert len(strict.requests) == 1
    assert "sk-wrong" not in str(problem.value)
    assert not [f for f in (tmp_path / "runs").rglob("*") if f.is_file() and b"sk-wrong" in f.read_bytes()]


def test_a_second_process_is_kept_out(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    checked = check_study(write_study(tmp_path / "study.yaml", villages, server.url))
    study = Study(checked.study, checked.dataset, checked.spec, tmp_path / "runs", Silence())
    with study.run.locked(), pytest.raises(RagwrightError, match="another process"):
        Study(checked.study, checked.dataset, checked.spec, tmp_path / "runs", Silence()).execute()


def test_a_sweep_and_a_whole_study_do_not_mix(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", villages, server.url, trials=3)
    swept = run(file, tmp_path / "runs", phases=Phases(compile=False))
    whole = run(file, tmp_path / "runs")
    assert swept.fingerprint != whole.fingerprint
    alone = run(file, tmp_path / "elsewhere")
    assert [entry.summary.score for entry in whole.trials] == [entry.summary.score for entry in alone.trials]
