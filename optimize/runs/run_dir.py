"""The folder of one study: what was paid for is found here again, whatever happened in between."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimize.compiling.candidate import Candidate
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.evaluation.ledger import Ledger, Spending
from optimize.evaluation.rows import money
from programs.config import PipelineConfig
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

    @property
    def command(self) -> str | None:
        """The command that works on the study: `optimize`, `sweep` or `compile`; None where none was recorded."""
        found = self.read_json("command.json")
        return found if isinstance(found, str) else None

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

    def evaluation(self, unit: str, count: int, compute: Callable[[int], Evaluation]) -> Evaluation:
        """The first `count` rows of a unit of work: read as far as it was done before, the rest computed and kept.

        Args:
            unit: Names the work, such as `trial-0007`; the same work always has the same name.
            count: Rows that are asked for.
            compute: Makes the rows from the given one on, up to `count`.
        """
        found = self.read_evaluation(unit) or Evaluation(())
        if len(found.rows) < count:
            found = found + compute(len(found.rows))
            lines = [json.dumps(row.as_json(), ensure_ascii=False) for row in found.rows]
            write_whole(self.evaluations / f"{unit}.jsonl", "".join(line + "\n" for line in lines))
        return Evaluation(found.rows[:count])

    def answered(self, unit: str) -> int:
        """Rows of a unit that are there."""
        found = self.read_evaluation(unit)
        return 0 if found is None else len(found.rows)

    def read_evaluation(self, unit: str) -> Evaluation | None:
        """The rows of a unit that are there; None where there are none."""
        file = self.evaluations / f"{unit}.jsonl"
        if not file.is_file():
            return None
        lines = file.read_text(encoding="utf-8").split("\n")
        return Evaluation(tuple(Row.from_json(json.loads(line)) for line in lines if line))

    def finished(self) -> Iterator[tuple[str, Evaluation]]:
        """All units that have rows, by name."""
        for file in sorted(self.evaluations.glob("*.jsonl")):
            evaluation = self.read_evaluation(file.stem)
            assert evaluation is not None, "listed just now"
            yield file.stem, evaluation

    def save_candidates(
        self, turn: str, candidates: Iterable[Candidate], spent: Ledger, problem: str, config: PipelineConfig
    ) -> None:
        """Keep what one optimizer made in its turn on a pipeline; written last is the list, which marks it finished."""
        made = list(candidates)
        for candidate in made:
            candidate.save(self.candidates)
        content = {"ids": [c.id for c in made], "spent": spent.as_json(), "problem": problem}
        content["config"] = config.as_params()
        self.write_json(f"candidates/{turn}.list.json", content)

    def read_candidates(self, turn: str) -> tuple[list[Candidate], Ledger, str] | None:
        """What one optimizer made in its turn, what it took, and what went wrong; None where it has not finished."""
        made = self.read_json(f"candidates/{turn}.list.json")
        if made is None:
            return None
        return [self.read_candidate(one) for one in made["ids"]], Ledger.from_json(made["spent"]), made["problem"]

    def spent(self, of: Callable[[str], bool] = lambda unit: True) -> Ledger:
        """What the kept evaluations took whose unit is one `of` those wanted, and all compiling."""
        found = sum((ledger_of(evaluation) for unit, evaluation in self.finished() if of(unit)), Ledger())
        lists = [self.read_json(f"candidates/{file.name}") for file in sorted(self.candidates.glob("*.list.json"))]
        return sum((Ledger.from_json(made["spent"]) for made in lists), found)

    def read_candidate(self, candidate_id: str) -> Candidate:
        """One candidate by id."""
        content = self.read_json(f"candidates/{candidate_id}.json")
        if content is None:
            raise RagwrightError(f"{self.candidates}: no candidate {candidate_id!r}.")
        return Candidate.from_json(content)


def ledger_of(evaluation: Evaluation) -> Ledger:
    """What an evaluation took, answering and judging."""

    def total(name: str) -> int:
        return int(evaluation.total(name))

    task = Spending(
        total("calls"), total("paid_calls"), total("prompt_tokens"), total("completion_tokens"), evaluation.usd
    )
    if not total("judge_calls"):
        return Ledger({"task": task})
    usd = money(row.judge_usd for row in evaluation.rows)
    judge = Spending(total("judge_calls"), total("judge_paid_calls"), total("judge_tokens"), 0, usd)
    return Ledger({"task": task, "judge": judge})


def write_whole(file: Path, text: str) -> Path:
    """Write a file aside and rename it, so that a reader never finds half of it."""
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, file)
    return file
