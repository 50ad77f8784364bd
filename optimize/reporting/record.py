"""What a report reads: a study's outcome, and what its folder holds beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optimize.data.dataset import Dataset, load_dataset
from optimize.data.example import Example
from optimize.data.splits import group_examples
from optimize.evaluation.evaluate import Row
from optimize.evaluation.outcome import Entry, Outcome
from optimize.runs.finished import read_outcome
from optimize.runs.run_dir import RunDir
from optimize.settings.study import StudyConfig, load_study
from programs.errors import RagwrightError
from programs.types import Document

RowsOf = Mapping[str, Row]
"""Example id -> what happened to it, in the order in which the questions were asked."""


@dataclass(frozen=True)
class Record:
    """A study as it is told.

    Attributes:
        outcome: What was found; phases that are still to come are left out.
        run: The study's folder.
        dataset: The questions; None where they are no longer there as the study saw them.
    """

    outcome: Outcome
    run: RunDir
    dataset: Dataset | None

    @cached_property
    def study(self) -> StudyConfig:
        """The study file, as resolved."""
        return load_study(self.run.path / "study.yaml")

    @cached_property
    def examples(self) -> Mapping[str, Example]:
        """All questions by id."""
        return {} if self.dataset is None else {example.id: example for example in self.dataset.examples}

    @cached_property
    def documents(self) -> Mapping[str, Document]:
        """All documents by id."""
        return {} if self.dataset is None else {document.id: document for document in self.dataset.corpus.documents}

    @cached_property
    def groups(self) -> Mapping[str, str]:
        """Example id -> group of dependent questions."""
        return {} if self.dataset is None else group_examples(self.dataset.examples, self.documents)

    @cached_property
    def _rows(self) -> dict[str, RowsOf]:
        return {}

    def rows(self, entry: Entry) -> RowsOf:
        """An entry's rows; none where the folder has lost them."""
        if entry.unit not in self._rows:
            evaluation = self.run.read_evaluation(entry.unit)
            found = () if evaluation is None else evaluation.rows[: entry.summary.n]
            self._rows[entry.unit] = {row.example_id: row for row in found}
        return self._rows[entry.unit]

    def scores(self, entry: Entry) -> dict[str, float]:
        """Example id -> score; failed questions are not among them."""
        return {i: row.score for i, row in self.rows(entry).items() if row.score is not None}


def read_record(run: RunDir) -> Record:
    """A finished study from its folder; without its data set where that was changed or is gone."""
    outcome = read_outcome(run)
    try:
        dataset = load_dataset(Path(load_study(run.path / "study.yaml").dataset))
    except RagwrightError:
        return Record(outcome, run, None)
    return Record(outcome, run, dataset if dataset.fingerprint == outcome.dataset_fingerprint else None)
