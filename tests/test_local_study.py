"""The whole loop with the real language model, small enough for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.villages import write_study

SMALL = {
    "lm": {"model": "local", "max_tokens": 12},
    "examples": {"search": 6, "confirm": 4, "test": 8},
    "finalists": 1,
    "trials": 2,
    "budget": {"lm_calls": 80},
}


@pytest.mark.model
def test_a_real_model_is_tuned_and_asked_in_a_fresh_process(villages: Path, tmp_path: Path, runs: Path) -> None:
    def ragwright(*arguments: object) -> str:
        command = [sys.executable, "-c", "from optimize.cli.main import main; main()", *map(str, arguments)]
        done = subprocess.run([*command, "--runs", str(runs)], capture_output=True, text=True, timeout=170)
        assert done.returncode == 0, done.stderr
        return done.stdout

    outcome = json.loads(ragwright("optimize", write_study(tmp_path / "study.yaml", villages, "", **SMALL), "--json"))
    assert outcome["verdict"] in ("better", "not shown better", "worse", "underpowered")
    assert outcome["baseline"]["summary"]["failures"] == outcome["baseline"]["summary"]["empty_answers"] == 0
    assert outcome["spent"]["prompt_tokens"] > 0 and outcome["spent"]["usd"] == 0.0
    export = next(runs.glob("*/export"))
    answer = json.loads(ragwright("ask", export, "Who is the smith of Farrow?", "--json"))
    assert answer["answer"].strip() and "farrow.md" in {source["doc_id"] for source in answer["sources"]}
