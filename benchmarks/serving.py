"""How much of a language model's throughput is left behind `ragwright serve`.

`python benchmarks/serving.py EXPORT --runs RUNS [--clients 32] [--seconds 15] [--workers 1] [--delay-ms 20] [--local]`

EXPORT is the export of a program with one predictor (`rag`), such as that of `ragwright quickstart`. A copy of it is
served whose LM is a server made here: it speaks as much of OpenAI's protocol as is needed and answers after 20 ms, as
many requests at once as come. With `--local` it is the export's own local model behind llama.cpp's server. `wrk` (a
Debian package) asks first that server directly, with the prompts that the export would send, then `ragwright serve`.
Every question is another one, so that no answer comes from a cache. Both sides have the same number of clients on
connections that stay open. CPU is what the processes of `ragwright serve` took, in milliseconds a question.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ANSWER = "forty-two"
ASK = """
local bodies = {%s}
local asked, threads = 0, 0
function setup(thread) thread:set("number", threads); threads = threads + 1 end
function request()
  asked = asked + 1
  local head, tail = bodies[asked %% #bodies + 1]:match("^(.*)@NUMBER@(.*)$")
  local body = head .. string.format("%%d-%%d-%s", number, asked) .. tail
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"rate": %%f, "p50": %%f, "p95": %%f, "p99": %%f, "count": %%d, "errors": %%d}\\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, summary.requests, e.status + e.connect + e.read + e.write + e.timeout))
end
"""
"""A script for wrk: the same bodies over and over, with another number in each."""

QUESTIONS = 100
"""Different questions of the export's data set."""


@dataclass(frozen=True)
class Load:
    """What wrk is told."""

    clients: int
    seconds: int
    folder: Path

    def put(self, url: str, bodies: list[Any], tag: str) -> dict[str, float]:
        """Requests per second, latencies in ms, and how many requests went wrong."""
        script = self.folder / "ask.lua"
        quoted = ",\n".join(f"[==[{json.dumps(body)}]==]" for body in bodies)
        script.write_text(ASK % (quoted, tag))
        command = ["wrk", "-t", "1", "-c", str(self.clients), "-d", f"{self.seconds}s", "--timeout", "60s"]
        said = subprocess.run([*command, "-s", script, url], capture_output=True, text=True, check=True).stdout
        found: dict[str, float] = json.loads(said.strip().splitlines()[-1])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--local", action="store_true", help="The export's local model in place of the stub.")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as ends:
        folder, load = Path(name), Load(asked.clients, asked.seconds, Path(name))
        original = yaml.safe_load((asked.export / "pipeline.yaml").read_text())
        chat = original["pipeline"]["prompt_format"] != "compact"
        if asked.local:
            address = ends.enter_context(local_model(original["lm"]))
        else:
            address = ends.enter_context(stub(asked.delay_ms / 1000, chat))
        export = copy_export(asked.export, folder / "export", original, address, asked.clients)
        questions = some_questions(Path(original["dataset"]))
        runs = beside(asked.runs, folder / "runs")
        path, bodies = prompts(export, runs, questions)
        print(f"{asked.clients} clients, {asked.seconds} s each, {os.cpu_count()} cores, {asked.workers} processes")
        # A first run warms both sides up.
        warm = Load(asked.clients, 2, folder)
        warm.put(f"{address}{path}", bodies, f"warm-{time.time_ns()}")
        bare = load.put(f"{address}{path}", bodies, f"bare-{time.time_ns()}")
        show("bare endpoint", bare)
        with served(export, runs, asked.workers) as (url, processes):
            asks = [{"question": question} for question in questions]
            warm.put(f"{url}/ask", asks, f"warm-{time.time_ns()}")
            before = cpu_seconds(processes)
            through = load.put(f"{url}/ask", asks, f"load-{time.time_ns()}")
            cpu = (cpu_seconds(processes) - before) / max(1, through["count"])
        show("ragwright serve", through, f"  CPU {cpu * 1000:.2f} ms a question")
        print(f"ratio {through['rate'] / bare['rate']:.3f}")


def show(name: str, found: dict[str, float], more: str = "") -> None:
    latencies = "  ".join(f"{name} {found[name]:.1f} ms" for name in ("p50", "p95", "p99"))
    print(f"{name:<16} {found['rate']:8.1f} requests/s  {latencies}  errors {found['errors']:.0f}{more}", flush=True)


def copy_export(source: Path, target: Path, pipeline: dict[str, Any], address: str, threads: int) -> Path:
    """The same export with another LM."""
    shutil.copytree(source, target)
    lm = {name: pipeline["lm"].get(name) for name in ("endpoint", "temperature", "max_tokens")}
    changed = {**pipeline, "lm": {**lm, "model": "openai/stub", "api_base": address, "threads": threads, "retries": 1}}
    (target / "pipeline.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    return target


def beside(runs: Path, target: Path) -> Path:
    """A runs folder with the same indexes and a cache of its own: made-up answers stay out of the other one."""
    target.mkdir()
    (target / "indexes").symlink_to((runs / "indexes").resolve(), target_is_directory=True)
    return target


def some_questions(dataset: Path) -> list[str]:
    """Questions with a place for a number in each."""
    lines = (dataset / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:QUESTIONS]
    return [f"{json.loads(line)['question']} (@NUMBER@)" for line in lines]


def prompts(export: Path, runs: Path, questions: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """The address and the bodies of what the export sends for the questions, with the places for the numbers."""
    from optimize.exporting.exported import load_export
    from programs.prompt_format import render

    loaded = load_export(export, runs)
    [(_, predictor)] = loaded.program.named_predictors()
    settings = {"model": "stub", "temperature": 0.0, "max_tokens": loaded.spec.max_tokens}
    bare = loaded.spec.endpoint == "completion" and loaded.config.prompt_format == "compact"
    bodies: list[dict[str, Any]] = []
    for question in questions:
        context = [passage.text for passage in loaded.program.search(question)]
        inputs = {"context": context, "question": question}
        messages = render(loaded.adapter, predictor.signature, predictor.demos, inputs)
        text = "\n\n".join(message["content"] for message in messages)
        bodies.append({**settings, **({"prompt": text, "stop": ["\n"]} if bare else {"messages": messages})})
    return "/completions" if bare else "/chat/completions", bodies


@contextlib.contextmanager
def served(export: Path, runs: Path, workers: int) -> Iterator[tuple[str, list[int]]]:
    """`ragwright serve` in processes of its own: its address and the ids of its processes."""
    command = [sys.executable, "-c", "from optimize.cli.main import main; main()", "serve", str(export), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--runs", str(runs), "--workers", str(workers)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = ""
        while "/health" not in said:
            line = process.stdout.readline()
            if not line:
                sys.exit("ragwright serve did not start")
            said += line
        url = re.findall(r"(http://\S+)/health", said)[0]
        ready: set[int] = set()
        while len(ready) < workers:
            with urllib.request.urlopen(f"{url}/health", timeout=60) as reply:
                ready.add(json.load(reply)["process"])
            time.sleep(0.1)
        yield url, sorted(ready)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def cpu_seconds(pids: list[int]) -> float:
    """What the processes have taken so far, in user and system time."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def stub(delay_s: float, chat: bool) -> Iterator[str]:
    """A server that answers every request after a delay, in a process of its own."""
    command = [sys.executable, __file__, "--stub", str(delay_s), str(int(chat))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


class Stub(asyncio.Protocol):
    """As little of HTTP and of OpenAI's protocol as a benchmark needs, so that the stub is not what is measured."""

    delay_s, reply = 0.02, b""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"content-length: *(\d+)", self.received[:end], re.IGNORECASE)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            self.received = self.received[whole:]
            asyncio.get_running_loop().call_later(self.delay_s, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.reply)


def run_stub(delay_s: float, chat: bool) -> None:
    """Serve until killed; the first line printed is the port."""
    import uvloop

    text = f"[[ ## answer ## ]]\n{ANSWER}\n\n[[ ## completed ## ]]" if chat else f" {ANSWER}"
    choice = {"index": 0, "finish_reason": "stop", "text": text, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 300, "completion_tokens": 5, "total_tokens": 305}
    named = {"id": "x", "object": "chat.completion", "created": 0, "model": "stub"}
    content = {**named, "choices": [choice], "usage": usage}
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    Stub.delay_s, Stub.reply = delay_s, head.encode() + body

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(serve())


@contextlib.contextmanager
def local_model(lm: dict[str, Any]) -> Iterator[str]:
    """llama.cpp's server with the export's model, in this process."""
    import xllamacpp

    from programs.lm import parse_lm

    spec = parse_lm(lm)
    params = xllamacpp.CommonParams()
    params.model.path = str(spec.weights())
    params.n_parallel, params.n_ctx = spec.threads, spec.threads * (spec.context_length or 8192)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
    params.cache_ram_mib = 0
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.ui = params.endpoint_slots = params.warmup = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stub"]:
        run_stub(float(sys.argv[2]), sys.argv[3] == "1")
    else:
        main()
