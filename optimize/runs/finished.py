"""Studies that have ended, found again by name."""

from __future__ import annotations

import json
from pathlib import Path

from optimize.evaluation.outcome import Outcome
from optimize.runs.run_dir import RunDir
from programs.errors import RagwrightError


def find_run(runs: Path, name: str | None) -> RunDir:
    """A study's folder: by path, by the beginning of its name, or the one that was worked on last.

    Raises:
        RagwrightError: There is none, or several fit.
    """
    if name is not None and (Path(name) / "outcome.json").is_file():
        return RunDir(Path(name))
    found = sorted(runs.glob("*/outcome.json"), key=lambda file: file.stat().st_mtime)
    fitting = [file.parent for file in found if name is None or file.parent.name.startswith(name)]
    if not fitting:
        known = ", ".join(file.parent.name for file in found) or "none yet"
        raise RagwrightError(f"no finished study {name or ''!r} in {runs}; there: {known}.")
    if name is not None and len(fitting) > 1:
        raise RagwrightError(f"{name!r} fits several studies: {', '.join(folder.name for folder in fitting)}.")
    return RunDir(fitting[-1])


def read_outcome(run: RunDir) -> Outcome:
    """What a study found, from its folder."""
    return Outcome.from_json(json.loads((run.path / "outcome.json").read_text(encoding="utf-8")))
