"""A study that is killed at any moment goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study

KILLS = int(os.environ.get("RAGWRIGHT_TEST_KILLS", "1"))
TRIALS = 4 + 2 * KILLS
EXAMPLES = {"search": 8, "confirm": 4, "test": 8}
COMMAND = [sys.executable, "-c", "from optimize.cli.main import main; main()"]


def start(study: Path, runs: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "optimize", str(study), "--runs", str(runs), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(study: Path, runs: Path) -> dict[str, Any]:
    process = start(study, runs)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    outcome: dict[str, Any] = json.loads(out)
    return outcome


def points(outcome: dict[str, Any]) -> list[tuple[str, str, float]]:
    return [(json.dumps(t["config"]), t["candidate"], t["summary"]["score"]) for t in outcome["trials"]]


@pytest.mark.timeout(300)
def test_kill_and_go_on(villages: Path, tmp_path: Path, migrated: Path) -> None:
    for runs in ("undisturbed", "killed"):
        (tmp_path / runs).mkdir()
        shutil.copy(migrated, tmp_path / runs / "mlflow.db")
    with OpenAIServer(answer=read_villages, delay_s=0.02) as server:
        study = write_study(tmp_path / "study.yaml", villages, server.url, trials=TRIALS, examples=EXAMPLES)
        undisturbed = finish(study, tmp_path / "undisturbed")
        once = len(server.requests)
        server.requests.clear()
        generator = random.Random(int(os.environ.get("RAGWRIGHT_TEST_SEED", "0")))
        for kill in range(KILLS):
            answered = len(server.requests)
            process = start(study, tmp_path / "killed")
            # Kills fall into the working part: after the process has been answered some times.
            wanted = answered + generator.randrange(1, once // (KILLS + 1))
            while len(server.requests) < wanted and process.poll() is None:
                time.sleep(0.005)
            assert process.poll() is None, f"the study ended before kill {kill}"
            process.send_signal(signal.SIGKILL)
            process.communicate()
        outcome = finish(study, tmp_path / "killed")
        asked = Counter(request.prompt for request in server.requests)
    assert points(outcome) == points(undisturbed)
    assert outcome["difference"] == undisturbed["difference"]
    assert outcome["verdict"] == undisturbed["verdict"]
    repeated = sum(count - 1 for count in asked.values())
    # A call that was under way when the process died may be asked again: at most one for each thread and kill.
    assert repeated <= 4 * KILLS, repeated
    assert len(server.requests) == once + repeated
