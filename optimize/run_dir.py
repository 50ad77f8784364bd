"""The folder of one study: what was paid for is found here again, whatever happened in between."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimize.candidate import Candidate
from optimize.evaluate import Evaluation, Row
from programs.errors import RagwrightError


class RunDir:
    """Reads and writes a study's folder. Every file appears whole or not at all.

    Args:
        path: `runs/<study>-<fingerprint>`; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in (self.evaluations, self.candidates):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def evaluations(self) -> Path:
        """One file of rows for every finished evaluation."""
        return self.path / "evaluations"

    @property
    def candidates(self) -> Path:
        """One file for every candidate."""
        return self.path / "candidates"

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.path / "journal.log"

    @property
    def export(self) -> Path:
        """What is taken away."""
        return self.path / "export"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out.

        Raises:
            RagwrightError: Another process is working in this folder.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RagwrightError(
                f"{self.path}: another process is running this study; wait for it or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the folder."""
        return write_whole(self.path / name, text)

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the folder."""
        return self.write_text(name, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the folder; None where there is none."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def evaluation(self, unit: str, compute: Callable[[], Evaluation]) -> Evaluation:
        """The rows of a unit of work: read where it was finished before, else computed and kept.

        Args:
            unit: Names the work, such as `trial-0007`; the same work always has the same name.
            compute: Does it.
        """
        found = self.read_evaluation(unit)
        if found is None:
            found = compute()
            lines = [json.dumps(row.as_json(), ensure_ascii=False) for row in found.rows]
            write_whole(self.evaluations / f"{unit}.jsonl", "".join(line + "\n" for line in lines))
        return found

    def read_evaluation(self, unit: str) -> Evaluation | None:
        """The rows of a finished unit; None where it is not finished."""
        file = self.evaluations / f"{unit}.jsonl"
        if not file.is_file():
            return None
        lines = file.read_text(encoding="utf-8").split("\n")
        return Evaluation(tuple(Row.from_json(json.loads(line)) for line in lines if line))

    def finished(self) -> Iterator[tuple[str, Evaluation]]:
        """All finished units, by name."""
        for file in sorted(self.evaluations.glob("*.jsonl")):
            evaluation = self.read_evaluation(file.stem)
            assert evaluation is not None, "listed just now"
            yield file.stem, evaluation

    def save_candidates(self, optimizer: str, candidates: Iterable[Candidate], calls: int) -> None:
        """Keep what one optimizer made; written last is the list, which marks it finished."""
        made = list(candidates)
        for candidate in made:
            candidate.save(self.candidates)
        self.write_json(f"candidates/{optimizer}.list.json", {"ids": [c.id for c in made], "calls": calls})

    def read_candidates(self, optimizer: str) -> list[Candidate] | None:
        """What one optimizer made; None where it has not finished."""
        made = self.read_json(f"candidates/{optimizer}.list.json")
        return None if made is None else [self.read_candidate(candidate_id) for candidate_id in made["ids"]]

    def compile_calls(self) -> int:
        """LM calls of all optimizers that have finished."""
        return sum(self.read_json(f"candidates/{file.name}")["calls"] for file in self.candidates.glob("*.list.json"))

    def read_candidate(self, candidate_id: str) -> Candidate:
        """One candidate by id."""
        content = self.read_json(f"candidates/{candidate_id}.json")
        if content is None:
            raise RagwrightError(f"{self.candidates}: no candidate {candidate_id!r}.")
        return Candidate.from_json(content)


def write_whole(file: Path, text: str) -> Path:
    """Write a file aside and rename it, so that a reader never finds half of it."""
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, file)
    return file
