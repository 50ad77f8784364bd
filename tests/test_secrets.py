from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimize.cli.main import main
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study

KEY, IN_ADDRESS = "sk-canary-7b21e9d4", "sk-canary-aa05c3f8"


def holders(folder: Path) -> list[str]:
    """The files that hold a secret."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    secrets = [secret.encode() for secret in (KEY, IN_ADDRESS)]
    return [str(file.relative_to(folder)) for file in files if any(secret in file.read_bytes() for secret in secrets)]


def optimize(study: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["ragwright", "optimize", str(study), "--runs", str(runs)])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("query", ["", f"?api_key={IN_ADDRESS}"])
def test_no_secret_is_written_anywhere(
    query: str,
    villages: Path,
    tmp_path: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A whole study with its report, export, registries, runs and traces, and calls that fail and repeat the key."""
    monkeypatch.setenv("READER_KEY", KEY)
    with OpenAIServer(answer=read_villages, key=KEY) as server:
        address = server.url + query
        lm = {"model": "openai/reader", "api_base": address, "api_key_env": "READER_KEY", "retries": 0, "threads": 4}
        study = write_study(tmp_path / "study.yaml", villages, address, lm=lm, trials=4)
        server.fail(500, 2, f"told to fail with {KEY} at {address}")
        code = optimize(study, runs, monkeypatch)
    said = capfd.readouterr()
    assert code == 0, said.err
    assert [request.key for request in server.requests if request.status == 500] == [KEY, KEY]
    assert sum(file.is_file() for file in runs.rglob("*")) > 100
    assert KEY not in said.out + said.err
    assert IN_ADDRESS not in said.out + said.err
    assert holders(runs) == []


def test_a_password_in_an_address_is_not_shown(
    villages: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with OpenAIServer(answer=read_villages) as server:
        address = server.url.replace("//", f"//me:{IN_ADDRESS}@")
        code = optimize(write_study(tmp_path / "study.yaml", villages, address, trials=2), runs, monkeypatch)
    said = capfd.readouterr()
    assert (code, IN_ADDRESS in said.out + said.err, holders(runs)) == (1, False, []), json.dumps(said.err)
