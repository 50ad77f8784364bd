from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import programs.environment
from optimize.tracking.tracker import connect, default_uri
from tests.villages import write_villages

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
