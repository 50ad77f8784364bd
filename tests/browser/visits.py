"""What browser tests look at: a study that ran, and a page that was visited."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RealStudy:
    """A finished study.

    Attributes:
        folder: Its own folder.
        runs: The folder around it.
        report: Its report.
    """

    folder: Path
    runs: Path
    report: Path


@dataclass
class Visit:
    """A page in the browser, and what it did.

    Attributes:
        page: Playwright's page.
        console: Errors and warnings that it wrote, exceptions included.
        requests: Addresses that it asked for.
    """

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def shoot(self, name: str, whole: bool = False) -> None:
        """Keep a picture, where a folder for pictures is named."""
        if (folder := os.environ.get("RAGWRIGHT_SCREENSHOTS")) is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=whole)


Visiting = Callable[..., AbstractContextManager[Visit]]
