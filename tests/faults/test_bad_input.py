"""What people get wrong: each is one clear line, and nothing that was there is lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from optimize.cli.main import main
from optimize.runs.progress import Silence
from optimize.serving.evaluating import evaluate_target
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study, write_villages

Refused = Callable[..., list[str]]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line, expect it to refuse, and return its error lines."""

    def run(*arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["ragwright", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        lines = err.splitlines()
        assert lines and all(line.startswith("error: ") for line in lines)
        return lines

    return run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A data set that a test may spoil."""
    return write_villages(tmp_path / "own")


def spoil(file: Path, number: int, line: str) -> None:
    lines = file.read_text(encoding="utf-8").split("\n")
    lines[number - 1] = line
    file.write_text("\n".join(lines), encoding="utf-8")


def line_of(file: Path, number: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(file.read_text(encoding="utf-8").split("\n")[number - 1])
    return found


def test_missing_study(refused: Refused, tmp_path: Path) -> None:
    (line,) = refused("check", tmp_path / "none.yaml")
    assert "none.yaml" in line and "ragwright init" in line


def test_missing_data_set(refused: Refused, tmp_path: Path) -> None:
    (line,) = refused("check", write_study(tmp_path / "study.yaml", tmp_path / "nowhere", "http://127.0.0.1:9/v1"))
    assert "nowhere" in line


def test_empty_corpus(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (line,) = refused("init", tmp_path / "new", "--documents", tmp_path / "docs")
    assert str(tmp_path / "docs") in line and ".md" in line
    assert not (tmp_path / "new").exists()


def test_a_document_of_20_mb(refused: Refused, own: Path) -> None:
    (own / "corpus" / "huge.md").write_text("word " * 4_200_000, encoding="utf-8")
    (line,) = refused("data", "check", own)
    assert "huge.md" in line and "MB" in line


def test_a_line_that_is_not_json_and_a_wrong_span_together(refused: Refused, own: Path) -> None:
    spoil(own / "train.jsonl", 2, '{"id": ')
    wrong = line_of(own / "test.jsonl", 3)
    wrong["evidence"] = [[{"doc_id": "arlow.md", "start": 5, "end": 999_999}]]
    spoil(own / "test.jsonl", 3, json.dumps(wrong))
    lines = refused("data", "check", own)
    assert len(lines) == 2
    assert any("train.jsonl:2" in line for line in lines) and any("test.jsonl:3" in line for line in lines)


def test_duplicate_ids(refused: Refused, own: Path) -> None:
    twice = line_of(own / "train.jsonl", 2)
    twice["id"] = line_of(own / "train.jsonl", 1)["id"]
    spoil(own / "train.jsonl", 2, json.dumps(twice))
    (line,) = refused("data", "check", own)
    assert "train.jsonl:2" in line and str(twice["id"]) in line


def test_not_utf_8(refused: Refused, own: Path) -> None:
    (own / "corpus" / "latin.md").write_bytes("Göteborg".encode("latin-1"))
    (line,) = refused("data", "check", own)
    assert "latin.md" in line and "UTF-8" in line


def test_top_k_above_the_number_of_chunks_is_told(
    villages: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with OpenAIServer(answer=read_villages) as server:
        baseline = {"chunk_size": 512, "top_k": 200, "prompt_format": "compact"}
        study = write_study(tmp_path / "study.yaml", villages, server.url, baseline=baseline, trials=1)
        monkeypatch.setattr(sys, "argv", ["ragwright", "optimize", str(study), "--runs", str(runs)])
        monkeypatch.setenv("COLUMNS", "200")
        main()
    assert "top_k 200: there are" in capsys.readouterr().out


def test_a_prompt_longer_than_the_context(refused: Refused, villages: Path, tmp_path: Path) -> None:
    lm = {"model": "openai/reader", "api_base": "http://127.0.0.1:9/v1", "context_length": 300}
    (line,) = refused("check", write_study(tmp_path / "study.yaml", villages, "", lm=lm, space={"chunk_size": [400]}))
    assert "2000 tokens" in line and "300" in line and "smaller" in line


def test_an_unreachable_endpoint(refused: Refused, villages: Path, tmp_path: Path, runs: Path) -> None:
    study = write_study(tmp_path / "study.yaml", villages, "http://127.0.0.1:9/v1")
    (line,) = refused("optimize", study, "--runs", runs)
    assert "http://127.0.0.1:9/v1" in line


def test_a_wrong_key_is_one_request_and_never_printed(
    refused: Refused, villages: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VILLAGE_KEY", "sk-wrong-and-secret")
    with OpenAIServer(answer=read_villages, key="right") as server:
        lm = {"model": "openai/reader", "api_base": server.url, "api_key_env": "VILLAGE_KEY"}
        study = write_study(tmp_path / "study.yaml", villages, server.url, lm=lm)
        (line,) = refused("optimize", study, "--runs", runs)
        assert len(server.requests) == 1
    assert "VILLAGE_KEY" in line and "sk-wrong" not in line
    files = [file for file in runs.rglob("*") if file.is_file()]
    assert files and not [file for file in files if b"sk-wrong" in file.read_bytes()]


def test_what_was_paid_for_is_there_when_the_server_is_gone(villages: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=read_villages) as server:
        study = write_study(tmp_path / "study.yaml", villages, server.url)
        first = evaluate_target(study, "validation", 10, tmp_path / "runs", Silence()).summary
        assert len(server.requests) == first.paid_calls == 10
    again = evaluate_target(study, "validation", 10, tmp_path / "runs", Silence()).summary
    assert (again.score, again.prompt_tokens, again.paid_calls) == (first.score, first.prompt_tokens, 0)
