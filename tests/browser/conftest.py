"""A study that really ran, its pages, and a browser that looks at them.

The system's Chromium is driven by Playwright. `RAGWRIGHT_SCREENSHOTS` names a folder for pictures of what was seen.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.visits import RealStudy, Visit, Visiting
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
START_SECONDS = 150.0


@pytest.fixture(scope="session")
def study(villages: Path, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> RealStudy:
    """A whole study over the villages, answered by a server on this machine, logged, reported and exported."""
    from optimize.cli.launch import launch
    from optimize.studies.check import check_study
    from optimize.studies.study import Phases

    folder = tmp_path_factory.mktemp("browser")
    runs = folder / "runs"
    runs.mkdir()
    shutil.copy(migrated, runs / "mlflow.db")
    with OpenAIServer(answer=_read_with_effort) as server:
        file = write_study(folder / "study.yaml", villages, server.url, trials=14)
        launched = launch(check_study(file), runs, Phases(), None)
    return RealStudy(launched.run.path, runs, launched.report)


def _read_with_effort(body: dict[str, Any]) -> str:
    """A reader that overlooks what stands there now and then, the more often the longer it is."""
    prompt = str(body.get("prompt") or body["messages"][-1]["content"])
    letters = sum(map(ord, prompt))
    return "somebody" if letters % 1000 < len(prompt) // 4 else read_villages(body)


@pytest.fixture(scope="session")
def mlflow_pages(study: RealStudy) -> Iterator[dict[str, str]]:
    """What `ragwright ui` names of the study: name -> address, while it serves them."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from optimize.cli.main import main; main()", "ui", study.folder.name]
    serving = subprocess.Popen(
        [*command, "--runs", str(study.runs), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield _named(serving)
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(30) == 0
        assert serving.stdout is not None
        serving.stdout.close()


def _named(serving: subprocess.Popen[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    deadline = time.monotonic() + START_SECONDS
    assert serving.stdout is not None
    said = []
    for line in serving.stdout:
        said.append(line)
        if line.startswith("Ctrl-C") or time.monotonic() > deadline:
            break
        name, _, address = line.strip().rpartition("  ")
        found[name.strip()] = address
    assert found, "".join(said)
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"{CHROMIUM} is not there: `apt-get install chromium` brings it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Visiting:
    """Open an address: `with visit(address, width=390, scheme="dark") as visited`."""

    @contextmanager
    def opened(address: str, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Visit]:
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        visited = Visit(context.new_page())
        visited.page.on("console", lambda said: _note(visited, said))
        visited.page.on("pageerror", lambda error: visited.console.append(str(error)))
        visited.page.on("request", lambda request: visited.requests.append(request.url))
        try:
            visited.page.goto(address)
            yield visited
        finally:
            context.close()

    return opened


def _note(visited: Visit, said: Any) -> None:
    if said.type in ("error", "warning"):
        visited.console.append(said.text)
