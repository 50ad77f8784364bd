"""An export as an HTTP server: opened and checked first, then bound, and ended without cutting answers off."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from programs.errors import RagwrightError

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram
    from optimize.serving.app import Service

GRACE_S = 30
"""Seconds that questions under way have to be answered when the server ends."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an export is served.

    Attributes:
        folder: The export.
        runs: Holds its index and the cached responses.
        host: The address to listen at.
        port: 0 for any free one.
        threads: Questions answered at the same time by each process; None: as many as the LM is asked for in the
            study.
        workers: Processes.
        key_env: Environment variable with the key that clients have to send; None lets everyone in.
    """

    folder: Path
    runs: Path
    host: str = "127.0.0.1"
    port: int = 8321
    threads: int | None = None
    workers: int = 1
    key_env: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    def __call__(self) -> Service:
        """The application of one of several processes; uvicorn calls it there."""
        _set_up_logs()
        return open_service(self)


def open_service(settings: Settings) -> Service:
    """Open the export, and load what the first question would wait for, but for the LM.

    Raises:
        RagwrightError: The export, its corpus, its index or its LM's settings are not what they have to be.
    """
    from optimize.exporting.exported import load_export
    from optimize.serving.access import LOOPBACK_NAMES, Access
    from optimize.serving.answering import Answerer
    from optimize.serving.app import Service, describe, model_name
    from optimize.serving.search import batch_searches

    key = _read_key(settings.key_env)
    exported = load_export(settings.folder, settings.runs)
    # DSPy says again, at length, what stands in the log; only now is it there to be told.
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    _check_workers(settings, exported)
    batch_searches(exported.program)
    answerer = Answerer(exported, settings.runs)
    answerer.warm()
    threads = settings.threads or exported.spec.threads
    # With a key no page in a browser gets an answer, under whatever name it calls this machine.
    access = Access(key, LOOPBACK_NAMES if settings.is_local and key is None else None)
    # What is loaded stays: looking through it for garbage, again and again, would halt answers for a tenth of a second.
    gc.collect()
    gc.freeze()
    return Service(answerer, describe(exported), model_name(exported), threads, access)


def serve(settings: Settings) -> None:
    """Answer over HTTP until Ctrl-C or SIGTERM; questions under way are answered first.

    Raises:
        RagwrightError: The export does not open, the key is missing, or the port is taken.
    """
    _set_up_logs()
    with _listening(settings) as sockets:
        service = open_service(settings)
        # From now on questions are taken, and wait for the moment that the rest takes.
        for one in sockets:
            one.listen(_BACKLOG)
        _announce(service, settings, sockets[0].getsockname()[1])
        if settings.workers > 1:
            service.close()
            _Workers(_configuration(settings, factory=True, workers=settings.workers), sockets).run()
        else:
            _Server(_configuration(service)).run(sockets)
    service.close()
    print("ended.", file=sys.stderr, flush=True)
    if service.busy:
        # What still waits for the LM has had its time; Python would wait for it to the end.
        os._exit(0)


_BACKLOG = 2048


class _Server(uvicorn.Server):
    """Ends by itself after a signal: uvicorn would send itself the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End gently at the first signal, and at once at the second Ctrl-C."""
        before = {sign: signal.signal(sign, self.handle_exit) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)


class _Workers(Multiprocess):
    """Processes that each listen at a socket of their own, where there are so many: the system deals connections out.

    At one socket, the process that is told first takes all connections that wait, and with them all the work.
    """

    @property
    def sockets(self) -> list[socket.socket]:
        """What the process that is about to start listens at."""
        begun = len(self.processes)
        if begun == self.processes_num:
            ended = (at for at, process in enumerate(self.processes) if process.exitcode is not None)
            begun = next(ended, 0)
        return [self._dealt[begun % len(self._dealt)]]

    @sockets.setter
    def sockets(self, sockets: list[socket.socket]) -> None:
        self._dealt = sockets


def _configuration(app: Any, **settings: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        # The lines would hold what clients put into their addresses.
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=120,
        lifespan="on",
        ws="none",
        **settings,
    )


@contextmanager
def _listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """The sockets, bound and not yet listening: a taken port is said before an index is built.

    One for each process where the system deals connections out among sockets at one port (Linux), else one for all.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise RagwrightError(f"--host: {settings.host!r} is no address of this machine; 127.0.0.1 is.") from None
    dealt = settings.workers if sys.platform == "linux" else 1
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        try:
            for _ in range(dealt):
                one = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if dealt > 1:
                    if not sockets:
                        # Without this, the port of another server that deals out would be shared with it.
                        _check_free(family, address)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                one.bind(sockets[0].getsockname() if sockets else address)
                one.set_inheritable(True)
                sockets.append(one)
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise RagwrightError(f"{where}: {said}; choose another, such as --port 0 for any free one.") from None
        yield sockets


def _check_free(family: int, address: Any) -> None:
    """Bind once alone.

    Raises:
        OSError: Another process has the address.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _announce(service: Service, settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{port}"
    study, verdict = service.about["study"] or {}, service.about["verdict"] or "no verdict"
    print(f"{service.model}  study {study.get('fingerprint')}, verdict: {verdict}")
    print(f"ask       curl {address}/ask -H 'Content-Type: application/json' -d '{{\"question\": \"...\"}}'")
    print(f"OpenAI    base_url {address}/v1, model {service.model}")
    print(f"health    {address}/health")
    print("Ctrl-C ends it.", flush=True)
    if not settings.is_local:
        who = "with the key" if settings.key_env else "who reaches this address"
        print(
            f"warning: {settings.host} is open to other machines: everyone {who} can ask, and reads passages of your "
            "documents. Nothing is encrypted; put a proxy with TLS before it"
            + ("." if settings.key_env else ", and ask for a key with --key-env."),
            file=sys.stderr,
            flush=True,
        )


def _check_workers(settings: Settings, exported: ExportedProgram) -> None:
    if settings.workers > 1 and exported.spec.is_local:
        raise RagwrightError(
            "--workers: the LM of this export runs in the process, and several would compete for the cores; leave it "
            "out."
        )


def _read_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise RagwrightError(f"--key-env: the environment variable {name} is not set; put the clients' key there.")
    return key


def _set_up_logs() -> None:
    """One line with the time for what went wrong."""
    log = logging.getLogger("ragwright.serve")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.handlers, log.propagate = [handler], False
