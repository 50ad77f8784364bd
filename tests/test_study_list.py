from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from optimize.reporting.study_list import as_json, as_lines, list_studies
from optimize.runs.run_dir import RunDir
from tests.outcomes import Studied


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished study, one under way, a damaged one, and folders that are none."""
    studied = Studied(tmp_path)
    runs = studied.run.path.parent
    studied.run.write_json("outcome.json", studied.outcome.as_json())
    begun = RunDir(runs / "later-aaaaaaaaaaaa")
    begun.write_text("study.yaml", (studied.run.path / "study.yaml").read_text(encoding="utf-8"))
    begun.evaluation("trial-0000", 3, lambda start: studied.evaluations["trial-0000"])
    damaged = RunDir(runs / "damaged-bbbbbbbbbbbb")
    damaged.write_text("study.yaml", (studied.run.path / "study.yaml").read_text(encoding="utf-8"))
    damaged.write_text("outcome.json", '{"study": 1}')
    for folder in ("indexes", "cache"):
        (runs / folder).mkdir()
    for age, run in enumerate((damaged, studied.run, begun)):
        for file in run.path.glob("*.*"):
            os.utime(file, (1e9 + 1000 * age, 1e9 + 1000 * age))
    return runs


def test_the_last_one_comes_first_and_unfinished_ones_are_there(runs: Path) -> None:
    found = list_studies(runs)
    assert [(one.run, one.result) for one in found] == [
        ("later-aaaaaaaaaaaa", "unfinished"),
        ("towers-0123456789ab", "better"),
        ("damaged-bbbbbbbbbbbb", "unreadable"),
    ]
    later, towers, _ = found
    assert (later.trials, later.lm_calls, later.difference) == (1, None, None)
    assert (towers.dataset, towers.trials, towers.lm_calls, towers.usd) == ("handmade", 3, 120, 0.12)
    assert towers.difference == pytest.approx(7 / 12)


def test_people_and_machines_read_the_same(runs: Path) -> None:
    said = "\n".join(as_lines(list_studies(runs)))
    d = Studied(runs / "again").outcome.difference
    assert d is not None
    assert f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" in said
    assert "0.1200 USD" in said
    content = json.loads(json.dumps(as_json(list_studies(runs)), allow_nan=False))
    assert content[1]["date"] == "2001-09-09T02:03:20+00:00"
    assert content[0]["low"] is None


def test_an_interval_without_end_is_json(runs: Path) -> None:
    file = runs / "towers-0123456789ab" / "outcome.json"
    outcome = json.loads(file.read_text(encoding="utf-8"))
    outcome["difference"] |= {"low": float("-inf"), "high": float("inf")}
    file.write_text(json.dumps(outcome), encoding="utf-8")
    one = next(one for one in list_studies(runs) if one.result == "better")
    assert json.dumps(as_json([replace(one)]), allow_nan=False)


def test_an_empty_folder_has_no_studies(tmp_path: Path) -> None:
    assert list_studies(tmp_path / "nothing") == []
