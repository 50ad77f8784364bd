"""MLflow's pages on the right store, for this machine only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimize.tracking import default_uri
from programs.errors import RagwrightError

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


def serve_ui(runs: Path, port: int, uri: str | None = None) -> None:
    """Serve MLflow's pages until Ctrl-C, and print the addresses of the experiments.

    Args:
        runs: Its database is shown unless `uri` says otherwise.
        port: On 127.0.0.1.
        uri: A tracking store; one that is itself a server is only named.

    Raises:
        RagwrightError: There is nothing to show, the port is taken, or the server does not start.
    """
    if uri is not None and uri.startswith(("http://", "https://")):
        print(f"{uri} is a server of its own; open it in a browser.")
        return
    if uri is None and not (runs / "mlflow.db").is_file():
        raise RagwrightError(f"{runs}: nothing has been logged here yet; `ragwright quickstart` runs a first study.")
    _check_port(port)
    log = runs / "mlflow-server.log"
    store = ["--backend-store-uri", uri or default_uri(runs)]
    store += ["--artifacts-destination", str(runs.resolve() / "mlartifacts")]
    with _server(store, port, log) as server:
        _wait_until_ready(server, port, log)
        for line in _addresses(port):
            print(line)
        print("Ctrl-C ends it.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise RagwrightError(f"port {port} is taken; choose another, such as --port {port % 65535 + 1}.") from None


@contextmanager
def _server(store: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which ends with the block, workers included."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    # Background jobs are six more processes and several GB, for features that are not used here.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, *store],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            break
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise RagwrightError(f"MLflow's server did not start; {log} says why.")


def _addresses(port: int) -> list[str]:
    """A line for every experiment of ours, the one worked on last first."""
    root = f"http://{HOST}:{port}"
    found = _post(
        f"{root}/api/2.0/mlflow/experiments/search", {"max_results": 100, "order_by": ["last_update_time DESC"]}
    )
    ours = [e for e in found.get("experiments", []) if any(tag["key"] == "ragwright" for tag in e.get("tags", []))]
    return [f"{e['name']:<20} {root}/#/experiments/{e['experiment_id']}/runs" for e in ours] or [root]


def _post(address: str, content: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(address, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer: dict[str, Any] = json.loads(reply.read())
    return answer
