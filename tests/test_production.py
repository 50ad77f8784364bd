"""The commands and the code of docs/production.md are run as they stand; only ports and addresses are put in place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dspy
import pytest

from optimize.compiling.candidate import Candidate, Demo, PredictorPrompt, apply_candidate
from optimize.exporting.export import export_winner
from optimize.exporting.registry import register
from optimize.runs.run_dir import RunDir
from optimize.settings.study import StudyConfig, dump_study
from optimize.tracking.tracker import connect
from programs.catalogue import build_program
from programs.errors import RagwrightError
from programs.lm import open_lm, parse_lm
from programs.prompt_format import CompactAdapter
from programs.response_cache import ResponseCache
from programs.search import open_search
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied
from tests.test_readme import ROOT, commands, run

PAGE = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
EXPORT, CHECK, ASK, PREDICT, SERVE, HEALTH, POST, SERVE_MODEL, INVOKE, EVALUATE, ADOPT = commands(PAGE)
CLIENT, LANGCHAIN, ROLL_BACK = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def reader() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=lambda body: "two years") as server:
        yield server


class Study:
    """A finished study called `mine`, in a working directory of its own."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self._address = folder, address
        self._studied = Studied(folder)
        self.outcome = replace(self._studied.outcome, study="mine", dataset="mine")
        self.run = RunDir(folder / "runs" / "mine-0123456789ab")
        self.run.write_text("study.yaml", dump_study(self._config))
        self.run.write_json("outcome.json", self.outcome.as_json())

    @property
    def _config(self) -> StudyConfig:
        return StudyConfig(name="mine", dataset=str(self._studied.dataset.path))

    def export(self, max_tokens: int) -> None:
        dataset = self._studied.dataset
        program = build_program("rag", open_search(self.folder / "runs", dataset.corpus, WINNER))
        prompts = {"generate": PredictorPrompt("Answer briefly.", (Demo("train-0", {"answer": "1800"}),))}
        apply_candidate(program, Candidate(prompts), {example.id: example for example in dataset.examples})
        spec = parse_lm({"model": "openai/reader", "api_base": self._address, "max_tokens": max_tokens})
        cache = self.folder / "runs" / "cache" / "responses.sqlite"
        with dspy.context(lm=open_lm(spec, cache=ResponseCache(cache)), adapter=CompactAdapter()):
            program(question=dataset.validation[0].question)
        export_winner(self.outcome, self._config, spec, dataset, program, self.run.export, cache=cache)


@pytest.fixture
def study(reader: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path, reader.url)
    study.export(64)
    (tmp_path / "mine").mkdir()
    return study


@pytest.fixture
def mine(study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the export taken and some questions."""
    questions = "".join(json.dumps({"question": f"When was the tower test {n} built?"}) + "\n" for n in range(3))
    (study.folder / "questions.jsonl").write_text(questions, encoding="utf-8")
    run(EXPORT, monkeypatch)
    return study.folder


@pytest.fixture
def registered(study: Study, migrated: Path) -> Path:
    """The working directory, with two versions of the winner in its MLflow store."""
    runs = study.folder / "runs"
    (runs / "mlflow.db").write_bytes(migrated.read_bytes())
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    client = connect(uri)
    experiment = client.create_experiment("mine", (runs / "mlartifacts").as_uri())
    for max_tokens in (64, 32):
        study.export(max_tokens)
        register(client, uri, client.create_run(experiment).info.run_id, study.run.export, study.outcome)
    return study.folder


def test_taken_asked_and_evaluated_again(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (mine / "mine" / "export" / "manifest.json").is_file()
    run(ASK, monkeypatch)
    assert "two years" in capsys.readouterr().out
    run(PREDICT, monkeypatch)
    answers = [json.loads(line)["answer"] for line in (mine / "answers.jsonl").read_text().splitlines()]
    assert answers == ["two years"] * 3
    run(EVALUATE, monkeypatch)
    assert "score" in capsys.readouterr().out
    (mine / "handmade" / "corpus" / "new.md").write_text("A new document.")
    from optimize.exporting.exported import load_export

    with pytest.raises(RagwrightError, match="the corpus has changed"):
        load_export(Path("mine/export"), Path("runs"))
    run(ADOPT, monkeypatch)
    assert "the corpus has changed" in capsys.readouterr().out
    assert load_export(Path("mine/export"), Path("runs")).changes == ()


def test_a_new_place_is_checked(mine: Path, reader: OpenAIServer) -> None:
    def checked() -> tuple[int, str]:
        words = shlex.split(CHECK.replace("http://127.0.0.1:8080/v1", reader.url))
        done = subprocess.run([sys.executable, "-S", *words[1:]], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert checked() == (0, "1 of 1 as recorded\n")
    reader.answer = lambda body: "three years"
    code, said = checked()
    assert code == 1
    assert 'recorded  {"answer": "two years"}\n  now       {"answer": "three years"}\n0 of 1 as recorded' in said


def test_every_file_of_the_table_is_there(mine: Path) -> None:
    named = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
    assert {file.name for file in (mine / "mine" / "export").iterdir()} == named


def test_the_code_for_the_openai_package(
    mine: Path, reader: OpenAIServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(mine / "mine" / "export"))
    monkeypatch.delitem(sys.modules, "fill", raising=False)
    exec(CLIENT.replace("http://127.0.0.1:8080/v1", reader.url), {})
    assert capsys.readouterr().out == "two years\n"
    assert "Context: The warranty lasts two years." in reader.requests[-1].prompt


def test_rolling_back(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect("sqlite:///runs/mlflow.db")
    assert client.get_model_version_by_alias("ragwright-mine-mine", "champion").version in (2, "2")
    exec(ROLL_BACK, {})
    assert sorted(capsys.readouterr().out.splitlines()) == ["1 better 0.8333", "2 better 0.8333"]
    assert client.get_model_version_by_alias("ragwright-mine-mine", "champion").version in (1, "1")
    assert client.get_prompt_version_by_alias("ragwright-mine-mine.generate", "champion").version == 1


def test_serving(mine: Path) -> None:
    ragwright = [sys.executable, "-c", "from optimize.cli.main import main; main()"]
    with _running([*ragwright, *shlex.split(SERVE)[3:]], "8321", "/health", mine) as port:
        assert json.loads(_output(HEALTH.replace("8321", port)))
        found = json.loads(_output(_fitting(POST).replace("8321", port)))
    assert found["answer"] == "two years"
    assert found["sources"]


@pytest.mark.freshenv
def test_serving_by_mlflow(registered: Path) -> None:
    setting, _, _, *words = shlex.split(SERVE_MODEL)
    command = [sys.executable, "-m", *words]
    # `uv run` puts the environment's commands on the path, and MLflow calls one of them.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "RAGWRIGHT_RUNS": str(registered / "elsewhere"), **dict([setting.split("=", 1)])}
    with _running(command, "5001", "/ping", registered, settings) as port:
        [found] = json.loads(_output(_fitting(INVOKE).replace("5001", port)))["predictions"]
    assert found["answer"] == "two years"
    assert found["sources"]


@pytest.mark.freshenv
def test_the_code_for_langchain(mine: Path) -> None:
    folder = mine / "langchain"
    subprocess.run(["uv", "venv", "-q", "--system-site-packages", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), "langchain-core"], check=True)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, "-c", LANGCHAIN], cwd=mine, env=here, capture_output=True, text=True, check=False)
    assert "Context: The warranty lasts two years.\nQuestion: How long is the warranty?" in done.stdout, done.stderr


@contextlib.contextmanager
def _running(
    command: list[str], named: str, sign: str, folder: Path, settings: dict[str, str] | None = None
) -> Iterator[str]:
    """A server on a free port instead of the one that is named, once it answers and until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [word.replace(named, port) if word == named else word for word in command]
    here = {**os.environ, "PYTHONPATH": str(ROOT), **(settings or {})}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(words, cwd=folder, env=here, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until:
                assert server.poll() is None, (folder / "server.log").read_text()
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{sign}", timeout=5):
                    break
                time.sleep(0.2)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGINT)
            server.wait(30)


def _fitting(command: str) -> str:
    """The command with a question that these documents answer."""
    return command.replace("How long is the warranty?", "When was the tower test 7 built?")


def _output(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
