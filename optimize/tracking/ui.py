"""MLflow's pages on the right store, for this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from optimize.tracking.store import connect, troubles
from optimize.tracking.tracker import default_uri
from optimize.tracking.ui_addresses import Addresses, Study, experiments, study_pages
from programs.addresses import cleaned, public_uri
from programs.errors import RagwrightError

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


def serve_ui(
    runs: Path,
    port: int,
    uri: str | None = None,
    study: Study | None = None,
    opened: Callable[[str], object] | None = None,
) -> None:
    """Serve MLflow's pages until Ctrl-C, and print where the studies are.

    Args:
        runs: Its database is shown unless `uri` says otherwise.
        port: On 127.0.0.1.
        uri: A tracking store; one that is itself a server is only named.
        study: The study to open at; None: the experiments are named.
        opened: Is given the address to open first, once the pages are there.

    Raises:
        RagwrightError: There is nothing to show, the port is taken, or the server does not start.
    """
    if uri is not None and uri.startswith(("http://", "https://")):
        root = public_uri(uri).rstrip("/")
        _show(_pages(root, uri, study) if study is not None else [("MLflow", root)], opened)
        return
    if uri is None and not (runs / "mlflow.db").is_file():
        raise RagwrightError(f"{runs}: nothing has been logged here yet; `ragwright quickstart` runs a first study.")
    _check_port(port)
    log = runs / "mlflow-server.log"
    artifacts = runs.resolve() / "mlartifacts"
    with _ended_by_signals(), _server(uri or default_uri(runs), artifacts, port, log) as server:
        _wait_until_ready(server, port, log)
        root = f"http://{HOST}:{port}"
        _show(_pages(root, uri or default_uri(runs), study), opened)
        print("Ctrl-C ends it.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()


def _pages(root: str, uri: str, study: Study | None) -> Addresses:
    """What there is to see and where, as the store says."""
    try:
        client = connect(uri)
        if study is None:
            return experiments(root, client)
        found = study_pages(root, client, study)
    except troubles() as error:
        raise RagwrightError(f"{root}: MLflow does not answer: {cleaned(str(error), uri)}") from None
    if found is None:
        raise RagwrightError(f"{root}: {study.key} was not logged here; `--tracking-uri` names another store.")
    return found


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C and a request to end are an exception, so that the server is not left behind."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # A shell starts what runs in its background deaf to Ctrl-C.
    before = {sign: signal.signal(sign, end) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _show(addresses: Sequence[tuple[str, str]], opened: Callable[[str], object] | None) -> None:
    """Print the addresses, what they are before each, and open the first."""
    width = max(len(name) for name, _ in addresses)
    for name, address in addresses:
        print(f"{name:<{width}}  {address}")
    if opened is not None:
        opened(addresses[0][1])


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise RagwrightError(f"port {port} is taken; choose another, such as --port {port % 65535 + 1}.") from None


@contextmanager
def _server(uri: str, artifacts: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which ends with the block, workers included."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    # Background jobs are six more processes and several GB, for features that are not used here.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # Not as an argument: every user of the machine can read those, and an address may hold a password.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--artifacts-destination", str(artifacts)],
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
