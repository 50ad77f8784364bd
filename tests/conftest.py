from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import programs.environment
from optimize.cli.main import main
from optimize.tracking.tracker import connect, default_uri
from tests.openai_server import OpenAIServer
from tests.villages import write_villages

if TYPE_CHECKING:
    from tests.outcomes import Studied

programs.environment.set_environment_defaults()


@pytest.fixture(scope="session")
def villages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The villages data set; tests read it only."""
    return write_villages(tmp_path_factory.mktemp("data") / "villages")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store: making one takes MLflow seconds, copying it nothing."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(default_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def runs(tmp_path: Path, migrated: Path) -> Path:
    """A runs folder with an empty MLflow store."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Studied:
    """A finished study made by hand, with the run folder, the data set and the index that a module's tests share."""
    from tests.outcomes import Studied

    return Studied(tmp_path_factory.mktemp("studied"))


@pytest.fixture
def lm() -> Iterator[OpenAIServer]:
    """A server that answers questions about the towers of `studied` from the passages that it is sent."""
    from tests.answering_exports import read_towers

    with OpenAIServer(answer=read_towers) as server:
        yield server


Ragwright = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ragwright(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ragwright:
    """Run the command line in this process, with lines on its input: exit code, stdout, stderr."""

    def run(*arguments: object, lines: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ragwright", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        monkeypatch.setenv("COLUMNS", "160")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
