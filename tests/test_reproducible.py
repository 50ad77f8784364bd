"""The same study twice: what was answered once decides, never a clock nor the number of threads."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from optimize.evaluation.outcome import Outcome
from optimize.reporting.report import write_report
from optimize.runs.progress import Silence
from optimize.studies.check import check_study
from optimize.studies.study import Study
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=read_villages) as running:
        yield running


def executed(file: Path, runs: Path) -> tuple[Outcome, Path]:
    """What a study finds, and its report."""
    outcome, study = found_by(file, runs)
    return outcome, write_report(outcome, study.run, study.dataset)[0]


def found_by(file: Path, runs: Path) -> tuple[Outcome, Study]:
    checked = check_study(file)
    study = Study(checked.study, checked.dataset, checked.spec, runs, Silence())
    return study.execute(), study


def points(outcome: Outcome) -> list[tuple[str, str, float, int, float | None]]:
    return [
        (entry.unit, json.dumps(entry.params), entry.summary.score, entry.summary.n, entry.estimate)
        for entry in outcome.trials
    ]


def test_a_warm_cache_gives_the_same_report_to_the_byte(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    file, runs = write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs"
    executed(file, tmp_path / "cold")
    asked = len(server.requests)
    reports = []
    for name in ("one", "two"):
        # A runs folder that knows nothing but what was answered and measured before; its name is in the report.
        shutil.copytree(tmp_path / "cold" / "cache", runs / "cache")
        outcome, report = executed(file, runs)
        assert outcome.spent.paid_calls == 0
        reports.append([report.with_suffix(suffix).read_bytes() for suffix in (".html", ".md")])
        runs.rename(tmp_path / name)
    assert len(server.requests) == asked
    assert all(len(text) > 1000 for text in reports[0])
    assert reports[0] == reports[1]


@pytest.mark.parametrize("threads", [1, 8])
def test_threads_change_nothing(villages: Path, server: OpenAIServer, tmp_path: Path, threads: int) -> None:
    four, _ = executed(write_study(tmp_path / "four.yaml", villages, server.url), tmp_path / "four")
    lm = {"model": "openai/reader", "api_base": server.url, "retries": 0, "threads": threads}
    other = tmp_path / "other"
    (other / "cache").mkdir(parents=True)
    # The measured time of retrieval is shared, the answers are not.
    shutil.copy(tmp_path / "four" / "cache" / "latencies.json", other / "cache")
    found, _ = executed(write_study(tmp_path / "other.yaml", villages, server.url, lm=lm), other)
    assert points(found) == points(four)
    assert found.winner is not None and four.winner is not None
    assert (found.winner.config, found.winner.candidate) == (four.winner.config, four.winner.candidate)
    assert found.difference == four.difference and found.verdict == four.verdict
    assert found.fingerprint == four.fingerprint


def test_another_seed_is_another_search(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    one, _ = executed(write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs")
    other, _ = executed(write_study(tmp_path / "study.yaml", villages, server.url, seed=1), tmp_path / "runs")
    assert points(one) != points(other)


def test_a_report_knows_no_clock(villages: Path, server: OpenAIServer, tmp_path: Path) -> None:
    outcome, study = found_by(write_study(tmp_path / "study.yaml", villages, server.url), tmp_path / "runs")
    slow = replace(outcome, spent=replace(outcome.spent, seconds=outcome.spent.seconds + 1000))
    texts = []
    for found in (outcome, slow):
        texts.append([path.read_text(encoding="utf-8") for path in write_report(found, study.run, study.dataset)])
    assert texts[0] == texts[1]
    assert not re.search(r"\b\d\d:\d\d(:\d\d)?\b|\b20\d\d-\d\d-\d\d\b", texts[0][1])
