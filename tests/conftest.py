from __future__ import annotations

from pathlib import Path

import pytest

import programs.environment
from tests.villages import write_villages

programs.environment.set_environment_defaults()


@pytest.fixture(scope="session")
def villages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The villages data set; tests read it only."""
    return write_villages(tmp_path_factory.mktemp("data") / "villages")
