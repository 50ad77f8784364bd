"""An export and its model in environments that have never heard of this project.

The server is a stand-in whose answers depend on every character of the request, so that only the right one gets the
right answer. RAGWRIGHT_FRESHENV_LM=local puts the real local model there instead, behind llama.cpp's own server.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.compiling.candidate import Candidate, Demo, PredictorPrompt, apply_candidate
from optimize.exporting.export import export_winner
from optimize.exporting.registry import register
from optimize.exporting.wheel import build_wheel
from optimize.settings.study import StudyConfig
from optimize.tracking.tracker import connect
from programs.catalogue import build_program
from programs.lm import open_lm, parse_lm
from programs.local_lm import LocalEngine, default_model
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from programs.search import open_search
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied

pytestmark = [pytest.mark.freshenv, pytest.mark.timeout(900)]

REAL = os.environ.get("RAGWRIGHT_FRESHENV_LM") == "local"
KEY = "FRESHENV_KEY"
KINDS = ["compact completion", *(["compact in-process"] if REAL else ["compact chat", "chat chat", "json chat"])]
"""Prompt format and kind of endpoint; the real model is too small for the long formats. The first is served by MLflow,
too: a model brings the package of an LM that runs in process along, but not its weights."""

DSPY = """
import json, sys
{snippet}
calls = [call for example in json.load(open("manifest.json"))["examples"] for call in example["calls"]]
print(json.dumps([program.generate(**call["inputs"]).answer for call in calls]))
assert not {{name for name in sys.modules if name.split(".")[0] in ("programs", "optimize")}}
"""
CLIENT = """
import json, sys
{snippet}
calls = [call for example in json.load(open("manifest.json"))["examples"] for call in example["calls"]]
answers = []
for call in calls:
    body = request(**call["inputs"])
    reply = client.{method}.create(model="{model}", **body)
    answers.append(read(reply.choices[0].{text})["answer"])
print(json.dumps(answers))
"""
BARE = """
import json, os, sys
from fill import ask
calls = [call for example in json.load(open("manifest.json"))["examples"] for call in example["calls"]]
sent = (ask(sys.argv[1], "{model}", key=os.environ["FRESHENV_KEY"], **call["inputs"]) for call in calls)
print(json.dumps([found["answer"] for found in sent]))
assert not {{name for name in sys.modules if name.split(".")[0] in ("dspy", "openai", "programs", "optimize")}}
"""


LANGCHAIN = """
import json
from pathlib import Path
from langchain_core.prompts.base import BasePromptTemplate
from optimize.exporting.importers import langchain_inputs, langchain_prompt
export = Path()
prompt = langchain_prompt(export)
assert isinstance(prompt, BasePromptTemplate)
roles = {"human": "user", "ai": "assistant"}
found = []
for example in json.load(open("manifest.json"))["examples"]:
    for call in example["calls"]:
        value = prompt.invoke(langchain_inputs(export, **call["inputs"]))
        messages = [{"role": roles.get(m.type, m.type), "content": m.content} for m in value.to_messages()]
        found.append({"messages": messages} if "messages" in call else {"prompt": value.to_string()})
print(json.dumps(found))
"""


def stand_in(body: dict[str, Any]) -> str:
    """An answer that any other request would not get."""
    sent = {name: value for name, value in body.items() if name not in ("model", "stream")}
    answer = hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()[:12]
    if "JSON object" in str(body):
        return json.dumps({"answer": answer})
    return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]" if "[[ ##" in str(body) else f" {answer}\nmore"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of the server that every client here asks; its key is in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        if not REAL:
            patch.setenv(KEY, "fresh-key")
            with OpenAIServer(answer=stand_in, key="fresh-key") as server:
                yield server.url
            return
        engine = LocalEngine(default_model())
        patch.setenv(KEY, engine._key)
        yield f"{engine._ready().listening_address}/v1"
        engine.close()


class Taken:
    """An export with worked examples, and the store that its model is registered in."""

    def __init__(self, folder: Path, kind: str, address: str) -> None:
        prompt_format, place = kind.split()
        config = replace(WINNER, prompt_format=prompt_format)
        studied = Studied(folder)
        self.runs = studied.run.path.parent
        named: Any = {"model": "openai/tiny", "api_base": address, "api_key_env": KEY, "endpoint": place, "threads": 1}
        spec = parse_lm({"model": "local", "max_tokens": 16} if place == "in-process" else {**named, "max_tokens": 16})
        program = build_program("rag", open_search(self.runs, studied.dataset.corpus, config))
        demos = tuple(Demo(f"train-{n}", {"answer": str(1800 + n)}) for n in (0, 1, 2))
        candidate = Candidate({"generate": PredictorPrompt("Give the year, and say nothing of {{question}}.", demos)})
        apply_candidate(program, candidate, {example.id: example for example in studied.dataset.examples})
        cache = self.runs / "cache" / "responses.sqlite"
        with dspy.context(lm=open_lm(spec, cache=ResponseCache(cache)), adapter=FORMATS[prompt_format]()):
            for example in studied.dataset.validation[:3]:
                program(question=example.question)
        assert studied.outcome.winner is not None
        self.outcome = replace(studied.outcome, winner=replace(studied.outcome.winner, config=config))
        study = StudyConfig(name="towers", dataset=str(studied.dataset.path))
        self.folder = export_winner(self.outcome, study, spec, studied.dataset, program, folder / "export", cache=cache)
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        assert len(self.manifest["examples"]) == 3
        self.answers = [example["answer"] for example in self.manifest["examples"]]

    def snippet(self, number: int, address: str) -> str:
        """The code of one of the page's blocks for people, down to its first request."""
        page = (self.folder / "prompt.md").read_text(encoding="utf-8")
        code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[number]
        for last in ("print(program", "body ="):
            code = code.partition(last)[0]
        served = code.replace("http://127.0.0.1:8080/v1", address)
        # An in-process model has no key; its server here has one.
        served = served.replace(", None, ", f', __import__("os").environ["{KEY}"], ')
        return served.replace('"no-key"', f'__import__("os").environ["{KEY}"]')


@pytest.fixture(scope="module", params=KINDS)
def taken(request: pytest.FixtureRequest, address: str, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return Taken(tmp_path_factory.mktemp("taken"), request.param, address)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with DSPy and the openai package, at the versions of the study."""
    return environment(tmp_path_factory.mktemp("plain"), [f"dspy=={dspy.__version__}", "openai"])


@pytest.fixture(scope="module")
def langchain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with LangChain's core, and this project without anything that it needs."""
    folder = tmp_path_factory.mktemp("langchain")
    python = environment(folder, ["langchain-core"])
    wheel = build_wheel(folder)
    subprocess.run(["uv", "pip", "install", "-q", "--no-deps", "--python", str(python), str(wheel)], check=True)
    return python


def environment(folder: Path, requirements: list[str], cwd: Path | None = None) -> Path:
    """A new virtual environment; its Python."""
    python = folder / "venv" / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run(["uv", "venv", "-q", "--python", version, str(folder / "venv")], check=True)
    subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), *requirements], check=True, cwd=cwd)
    for package in ("programs", "optimize"):
        known = subprocess.run([python, "-c", f"import {package}"], cwd=folder, capture_output=True, check=False)
        assert (known.returncode == 0) == bool(cwd), "this project is there only where the model brings it"
    return python


def run(python: Path, script: str, *arguments: str, folder: Path) -> Any:
    """What a script prints, as JSON; it sees the export's folder and nothing of this project."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    # No cache of DSPy's answers for the server.
    outside["DSPY_CACHEDIR"] = tempfile.mkdtemp(dir=python.parent)
    done = subprocess.run(
        [python, "-c", script, *arguments], cwd=folder, env=outside, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_plain_dspy_gives_the_recorded_answers(plain: Path, taken: Taken, address: str) -> None:
    script = DSPY.format(snippet=taken.snippet(0, address))
    assert run(plain, script, folder=taken.folder) == taken.answers


def test_an_openai_client_gives_the_recorded_answers(plain: Path, taken: Taken, address: str) -> None:
    bare = taken.manifest["endpoint"]["kind"] == "completion"
    method, text = ("completions", "text") if bare else ("chat.completions", "message.content")
    script = CLIENT.format(snippet=taken.snippet(1, address), method=method, text=text, model="tiny")
    assert run(plain, script, folder=taken.folder) == taken.answers


def test_nothing_but_python_gives_the_recorded_answers(plain: Path, taken: Taken, address: str) -> None:
    assert run(plain, BARE.format(model="tiny"), address, folder=taken.folder) == taken.answers


def test_langchain_fills_the_recorded_prompts(langchain: Path, taken: Taken) -> None:
    calls = [call for example in taken.manifest["examples"] for call in example["calls"]]
    sent = [{name: call[name] for name in ("messages", "prompt") if name in call} for call in calls]
    assert run(langchain, LANGCHAIN, folder=taken.folder) == sent


@pytest.mark.parametrize("taken", KINDS[:1], indirect=True)
def test_mlflow_serves_the_model_from_what_it_declares(taken: Taken, tmp_path: Path, migrated: Path) -> None:
    import mlflow.artifacts

    store = tmp_path / "server"
    store.mkdir()
    (store / "mlflow.db").write_bytes(migrated.read_bytes())
    with tracking_server(store) as uri:
        client = connect(uri)
        run_id = client.create_run(client.create_experiment("handmade")).info.run_id
        registered = register(client, uri, run_id, taken.folder, taken.outcome)
        assert register(client, uri, run_id, taken.folder, taken.outcome) == registered
        prompt, _ = registered.prompts["generate"]
        assert "{{question}}" in str(client.load_prompt(f"prompts:/{prompt}@champion").template)
        [output] = client.get_run(run_id).outputs.model_outputs
        place = client.get_logged_model(output.model_id).artifact_location
        model = mlflow.artifacts.download_artifacts(f"{place}/", dst_path=str(tmp_path / "model"), tracking_uri=uri)
        python = environment(tmp_path, ["-r", "requirements.txt"], cwd=Path(model))
        rows = [{"question": example["question"]} for example in taken.manifest["examples"]]
        with served(python, f"models:/{registered.name}@challenger", uri, tmp_path) as url:
            body = json.dumps({"dataframe_records": rows}).encode()
            sent = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(sent, timeout=120) as reply:
                found = json.loads(reply.read())["predictions"]
    assert [one["answer"] for one in found] == taken.answers
    passages = [[passage["text"] for passage in example["passages"]] for example in taken.manifest["examples"]]
    assert [[source["text"] for source in one["sources"]] for one in found] == passages


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """MLflow's own server on the database in a folder, until the block ends."""
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, settings, folder, f"http://127.0.0.1:{port}", "/health") as url:
        yield url


@contextlib.contextmanager
def served(python: Path, model: str, uri: str, folder: Path) -> Iterator[str]:
    """`mlflow models serve`, until the block ends."""
    port = free_port()
    settings = {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        KEY: os.environ[KEY],
    }
    mlflow = str(python.parent / "mlflow")
    command = [mlflow, "models", "serve", "-m", model, "--env-manager", "local", "--port", str(port)]
    with running(command, settings, folder, f"http://127.0.0.1:{port}", "/ping") as url:
        yield url


@contextlib.contextmanager
def running(command: list[str], settings: dict[str, str], folder: Path, url: str, sign: str) -> Iterator[str]:
    """A server, once it gives its sign of life and until the block ends; its address."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, env=settings, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
        try:
            until = time.monotonic() + 180
            while time.monotonic() < until:
                assert server.poll() is None, log.read_text()
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}{sign}", timeout=5):
                    break
                time.sleep(0.5)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
