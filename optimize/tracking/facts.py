"""What is known of a study while it is logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optimize.data.dataset import Dataset
from optimize.data.example import Example
from optimize.data.splits import group_examples
from optimize.evaluation.outcome import Entry
from optimize.runs.run_dir import RunDir
from optimize.tracking.records import dataset_record, study_params
from optimize.tracking.retracing import Retracing

if TYPE_CHECKING:
    from mlflow.entities import Dataset as DatasetEntity

Messages = Callable[[], list[dict[str, Any]]]
"""Renders what the LM is sent, predictor by predictor, with placeholders for what changes with the question."""


@dataclass
class Facts:
    """One study and where it is logged.

    Attributes:
        uri: The store.
        key: The study's name and fingerprint.
        dataset: The data.
        run: The study's folder.
        study_yaml: The study file.
        warn: Is told what could not be logged.
        baseline: The baseline of the search, once it was told.
        messages: Unit -> renders what the LM is sent.
        traces: Whether the store takes traces.
    """

    uri: str
    key: str
    dataset: Dataset
    run: RunDir
    study_yaml: str
    warn: Callable[[str], None]
    baseline: Entry | None = None
    messages: dict[str, Messages] = field(default_factory=dict)
    traces: bool = True

    @cached_property
    def params(self) -> dict[str, str]:
        """The study file's plain settings."""
        return study_params(self.study_yaml)

    @cached_property
    def examples(self) -> dict[str, Example]:
        """Examples by id."""
        return {example.id: example for example in self.dataset.examples}

    @cached_property
    def groups(self) -> dict[str, str]:
        """Example id -> group of dependent questions."""
        return group_examples(
            self.dataset.examples, {document.id: document for document in self.dataset.corpus.documents}
        )

    @cached_property
    def retracing(self) -> Retracing:
        """Retrieves again."""
        return Retracing(self.run.path.parent, self.dataset.corpus, self.params["program"])

    @cached_property
    def data(self) -> DatasetEntity:
        """The data set as MLflow knows it; its fingerprint takes a look at every example."""
        return dataset_record(self.dataset)

    @property
    def search_questions(self) -> int:
        """Search questions in all, as the study laid them out."""
        laid_out = self.run.read_json("examples.json")
        if laid_out is not None:
            return len(laid_out["search"])
        return self.baseline.summary.n if self.baseline is not None else 0

    def is_baseline(self, entry: Entry) -> bool:
        """Whether an evaluation is the baseline's, in any phase."""
        return self.baseline is not None and same_point(entry, self.baseline)


def same_point(one: Entry, other: Entry) -> bool:
    """Whether two evaluations are of one configuration with one candidate."""
    return (one.config, one.candidate) == (other.config, other.candidate)
