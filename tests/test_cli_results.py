from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from optimize.runs.run_dir import RunDir
from tests.conftest import Ragwright
from tests.outcomes import Studied


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished studies."""
    studied = Studied(tmp_path)
    studied.run.write_json("outcome.json", studied.outcome.as_json())
    other = RunDir(studied.run.path.parent / "bridges-ba9876543210")
    other.write_text("study.yaml", (studied.run.path / "study.yaml").read_text(encoding="utf-8"))
    for unit, evaluation in studied.evaluations.items():
        other.evaluation(unit, len(evaluation.rows), lambda start, found=evaluation: found)
    other.write_json("outcome.json", replace(studied.outcome, study="bridges").as_json())
    return studied.run.path.parent


def test_a_report_is_printed_and_written(ragwright: Ragwright, runs: Path) -> None:
    code, out, _ = ragwright("report", "towers", "--runs", runs)
    assert code == 0
    assert out.strip().startswith("Better: the winner scores 0.833")
    assert "Questions won and lost" in out
    assert (runs / "towers-0123456789ab" / "report.html").is_file()
    code, brief, _ = ragwright("report", "towers", "--brief", "--runs", runs)
    assert code == 0 and "token_f1 on test" in brief and "Questions won" not in brief
    code, content, _ = ragwright("report", "towers", "--json", "--runs", runs)
    assert json.loads(content)["outcome"]["verdict"] == "better"


def test_studies_are_compared(ragwright: Ragwright, runs: Path) -> None:
    code, out, _ = ragwright("compare", "towers", "bridges", "--runs", runs)
    assert code == 0
    assert "the winner of bridges scores 0.000 (95 % interval" in " ".join(out.split())
    assert (runs / "compare.html").is_file() and (runs / "compare.md").is_file()
    out = ragwright("compare", "towers", "bridges", "--runs", runs, "--json", "--out", runs / "other.html")[1]
    assert json.loads(out)["comparable"] is True
    assert json.loads(out)["report"] == str(runs / "other.html")


def test_what_cannot_be_compared_is_one_line(ragwright: Ragwright, runs: Path) -> None:
    assert ragwright("compare", "towers", "--runs", runs)[::2] == (
        1,
        "error: compare needs two studies or more; `ragwright runs` lists them.\n",
    )
    code, _, err = ragwright("compare", "towers", "nothing", "--runs", runs)
    assert code == 1 and "no finished study 'nothing'" in err
    code, _, err = ragwright("compare", "towers", "bridges", "--runs", runs, "--out", runs / "no" / "x.html")
    assert code == 1 and "no such folder" in err
    assert ragwright("compare")[0] == 2


def test_studies_are_listed(ragwright: Ragwright, runs: Path, tmp_path: Path) -> None:
    code, out, _ = ragwright("runs", "--runs", runs)
    assert code == 0 and "towers-0123456789ab" in out and "better" in out
    listed = json.loads(ragwright("runs", "--runs", runs, "--json")[1])
    assert {one["run"] for one in listed} == {"towers-0123456789ab", "bridges-ba9876543210"}
    assert "no studies yet" in ragwright("runs", "--runs", tmp_path / "empty")[1]


def test_ui_names_what_is_wrong(ragwright: Ragwright, runs: Path) -> None:
    code, _, err = ragwright("ui", "towers", "--runs", runs)
    assert code == 1 and "nothing has been logged here yet" in err
    code, _, err = ragwright("ui", "nothing", "--runs", runs)
    assert code == 1 and "no finished study" in err
