"""A PostgreSQL of its own for a test, and an MLflow server on it, both on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

USER, DATABASE = "tracker", "postgres"


def binaries() -> Path | None:
    """The newest PostgreSQL's programs, or None."""
    found = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").is_file()]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def postgres(programs: Path, password: str) -> Iterator[str]:
    """Run a database that asks for the password; its address with user and password."""
    # Not pytest's folder, which other users may not enter: root may not run PostgreSQL.
    home = Path(tempfile.mkdtemp(prefix="ragwright-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(home, user.pw_uid, user.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    secret = home / "password"
    secret.write_text(password, encoding="utf-8")
    if as_user:
        os.chown(secret, user.pw_uid, user.pw_gid)
    data, port = home / "data", free_port()
    made = [str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256", "--pwfile", str(secret)]
    subprocess.run([*as_user, *made, "-E", "UTF8", "--no-sync"], check=True, capture_output=True, cwd=home)
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": home, "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [*as_user, str(programs / "postgres"), "-D", str(data), *options], cwd=home, stdout=log, stderr=log
        )
    try:
        address = f"{USER}:{password}@127.0.0.1:{port}/{DATABASE}"
        _wait_for_database(server, f"postgresql://{address}", home / "log")
        # Which driver stands for the plain scheme differs between versions of SQLAlchemy.
        yield f"postgresql+psycopg2://{address}"
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
        server.wait(30)
        shutil.rmtree(home, ignore_errors=True)


def _wait_for_database(server: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    import psycopg2

    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(uri).close()
            return
        time.sleep(0.1)
    raise RuntimeError(log.read_text(encoding="utf-8"))


@contextlib.contextmanager
def mlflow_server(store: str, artifacts: Path, port: int) -> Iterator[str]:
    """Run MLflow's server; its address."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(artifacts)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = artifacts.with_name(f"server-{port}.log")
    artifacts.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, cwd=artifacts.parent, start_new_session=True
        )
    try:
        until = time.monotonic() + 150
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log.read_text(encoding="utf-8"))
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(15)
