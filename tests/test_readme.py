"""The README's commands are run as they stand; only what they need from outside is put in place."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optimize.cli.scaffold
from optimize.cli.main import main
from tests.openai_server import OpenAIServer
from tests.villages import read_villages

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RETRIEVAL = (ROOT / "docs" / "retrieval.md").read_text(encoding="utf-8")


def commands(page: str = README) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `uv run ragwright …` in this process, with the shell's wildcard expanded."""
    words = shlex.split(command)
    assert words[:3] == ["uv", "run", "ragwright"], command
    expanded = [str(next(Path().glob(word))) if "*" in word else word for word in words[3:]]
    monkeypatch.setattr(sys, "argv", ["ragwright", *expanded])
    main()


def test_the_readme_has_the_commands_that_are_run_here() -> None:
    assert commands()[:2] == ["uv run ragwright quickstart", "uv run pytest"]
    assert [shlex.split(command)[3] for command in commands()[2:]] == ["init", "check", "plan", "optimize", "ask"]


def test_the_quickstart_finds_its_sample() -> None:
    with optimize.cli.scaffold.quickstart_study() as file:
        assert file == ROOT / "datasets" / "handbook" / "quickstart.yaml" and file.is_file()


def test_quickstart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command on the real handbook; a server stands in for the local model, which takes minutes."""
    monkeypatch.chdir(tmp_path)
    with OpenAIServer(answer=lambda body: "about 20") as server:

        @contextlib.contextmanager
        def answered_at_once() -> Iterator[Path]:
            source = ROOT / "datasets" / "handbook" / "quickstart.yaml"
            lm = json.dumps({"model": "openai/stand-in", "api_base": server.url})
            text = re.sub(r"^lm: .*$", f"lm: {lm}", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
            study = tmp_path / "quickstart.yaml"
            text = text.replace("dataset: .", f"dataset: {source.parent}") + "trials: 3\n"
            study.write_text(text, encoding="utf-8")
            yield study

        monkeypatch.setattr(optimize.cli.scaffold, "quickstart_study", answered_at_once)
        run(commands()[0], monkeypatch)
    out = capsys.readouterr().out
    for promised in ("token_f1 on test", "LM calls", "report", "export", "next", "ragwright ask"):
        assert promised in out


@pytest.fixture
def own_documents(villages: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory with documents and questions where the pages say they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "documents").symlink_to(villages / "corpus")
    parts = [(villages / f"{split}.jsonl").read_text(encoding="utf-8") for split in ("train", "validation", "test")]
    (tmp_path / "questions.jsonl").write_text("".join(parts), encoding="utf-8")
    return tmp_path


def test_choosing_retrieval(
    own_documents: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [shlex.split(command)[3] for command in commands(RETRIEVAL)] == ["screen", "screen", "data"]
    run(commands()[2], monkeypatch)
    for command in commands(RETRIEVAL):
        run(command, monkeypatch)
    out = capsys.readouterr().out
    for promised in ("The front", "no LM call", "screen.html", "lost by"):
        assert promised in out


def test_your_own_documents(
    own_documents: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(body: dict[str, object]) -> str:
        """A reader that loses its way in long contexts, so that there is something to be found."""
        if "warranty" in str(body):
            return "two years"
        return read_villages(body) if len(str(body)) < 900 else "I am lost"

    with OpenAIServer(answer=read) as server:
        init, *rest = commands()[2:]
        run(init, monkeypatch)
        study = tmp_path / "mine" / "study.yaml"
        lm = json.dumps({"model": "openai/reader", "api_base": server.url})
        study.write_text(study.read_text(encoding="utf-8").replace("lm: local ", f"lm: {lm} "), encoding="utf-8")
        for command in rest:
            run(command, monkeypatch)
    assert "two years" in capsys.readouterr().out
