"""An optimizer that is killed in the middle goes on where it was: what was answered is not asked again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optimize.compiling import OPTIMIZERS
from programs.response_cache import ResponseCache
from tests.compiling_cases import SMALL, THREADS, Models, compile_villages, open_villages
from tests.openai_server import OpenAIServer


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "labeled_fewshot"])
def test_kill_and_go_on(optimizer: str, villages: Path, tmp_path: Path) -> None:
    data, search = open_villages(villages, tmp_path / "indexes")
    with OpenAIServer(answer=Models(steady=True), delay_s=0.03) as server:

        def compile_with(cache: str) -> list[str]:
            responses = ResponseCache(tmp_path / cache)
            params = SMALL[optimizer]
            compiled = compile_villages(optimizer, data, search, server.url, params=params, cache=responses)
            responses.close()
            return [candidate.id for candidate in compiled.candidates]

        undisturbed = compile_with("undisturbed.sqlite")
        once = len(server.requests)
        server.requests.clear()

        command = [sys.executable, "-m", "tests.compiling_cases", villages, tmp_path / "indexes"]
        process = subprocess.Popen(
            [*map(str, [*command, tmp_path / "killed.sqlite", optimizer, server.url])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )
        wanted = random.Random(optimizer + os.environ.get("RAGWRIGHT_TEST_SEED", "0")).randrange(
            1, max(2, once - THREADS)
        )
        while len(server.requests) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, out.decode()
        # What the dead process had under way reaches the server's count when it is answered.
        time.sleep(0.1)
        asked_before = len(server.requests)
        assert wanted <= asked_before < once

        assert compile_with("killed.sqlite") == undisturbed
        # A call that was under way in each thread may be asked again.
        assert once <= len(server.requests) <= once + THREADS

        server.requests.clear()
        assert compile_with("killed.sqlite") == undisturbed
        assert not server.requests
