"""Score one thing outside a study: an export that is in use, or a study's baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.data.dataset import SPLITS, Dataset, require_answers
from optimize.data.example import Example
from optimize.data.splits import balanced_order, group_examples
from optimize.evaluation.evaluate import Row, evaluate
from optimize.evaluation.outcome import Summary, summarize
from optimize.metrics.table import load_metric
from optimize.reporting.headline import finite
from optimize.runs.progress import Progress
from optimize.serving.evaluating_questions import read_again
from optimize.serving.standing import Comparison, compare
from programs.config import PipelineConfig
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram


@dataclass(frozen=True)
class Measured:
    """What an export, or a baseline, scores.

    Attributes:
        summary: The numbers.
        split: Of which questions.
        changes: What is not as it was when the export was made, one sentence each.
        notes: What the data set says of its questions, such as evidence that is gone, or found again elsewhere.
        comparison: Against what the study measured; None for a baseline, and where the study measured nothing.
        exported: What was scored.
    """

    summary: Summary
    split: str
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    comparison: Comparison | None
    exported: ExportedProgram

    def as_json(self) -> dict[str, Any]:
        """As plain data, the numbers on top; what has no bound is None."""
        compared = self.comparison.as_json() if self.comparison else None
        more = {"split": self.split, "changes": list(self.changes), "notes": list(self.notes)}
        return finite({**self.summary.as_metrics(), **more, "comparison": compared})


def evaluate_target(
    target: Path, split: str, limit: int | None, runs: Path, progress: Progress, corpus: Path | None = None
) -> Measured:
    """Score an export folder or a study's baseline on a split of its data set, with the documents as they are now.

    The test split of an export's study has given its verdict; scoring on it again tunes nothing, but choosing by such
    scores does. A question whose evidence is gone from an export's documents is still asked: its answer counts, and
    retrieval is not measured on it.

    Args:
        target: The folder or the study file.
        split: `train`, `validation` or `test`.
        limit: At most so many questions, spread over documents.
        runs: Where indexes and responses are kept.
        progress: Hears how far it is.
        corpus: Where an export's corpus is now; None: where it was.

    Raises:
        RagwrightError: The target or the split cannot be used.
    """
    if split not in SPLITS:
        raise RagwrightError(f"--split: unknown split {split!r}; choices: {', '.join(SPLITS)}.")
    if target.is_dir():
        from optimize.exporting.exported import load_export

        exported = load_export(target, runs, corpus=corpus, accept_changes=True)
        return _score(exported, read_again(exported, split), split, limit, progress)
    exported, dataset = _baseline(target, runs)
    return _score(exported, dataset, split, limit, progress)


def _score(exported: ExportedProgram, dataset: Dataset, split: str, limit: int | None, progress: Progress) -> Measured:
    require_answers(dataset)
    groups = group_examples(dataset.examples, {document.id: document for document in dataset.corpus.documents})
    examples: Sequence[Example] = balanced_order(getattr(dataset, split), groups, seed=0)[:limit]
    done = 0

    def count(_: Row) -> None:
        nonlocal done
        done += 1
        progress.working("questions", done, len(examples))

    with exported.context():
        rows = evaluate(exported.program, examples, load_metric(exported.metric), exported.spec.threads, count)
    summary = summarize(rows, groups)
    compared = compare(exported.folder, exported.manifest, split, rows, summary, groups) if exported.manifest else None
    return Measured(summary, split, exported.changes, dataset.notes, compared, exported)


def _baseline(study_file: Path, runs: Path) -> tuple[ExportedProgram, Dataset]:
    """A study's baseline in the shape of an export, so that both are scored by the same code."""
    from optimize.exporting.exported import ExportedProgram
    from optimize.studies.check import check_study
    from programs.catalogue import build_program
    from programs.lm import open_lm
    from programs.prompt_format import FORMATS
    from programs.response_cache import ResponseCache
    from programs.search import open_search
    from programs.summaries import open_summarizer

    checked = check_study(study_file)
    study, dataset = checked.study, checked.dataset
    config = PipelineConfig(**study.baseline.model_dump()).canonical()
    (runs / "cache").mkdir(parents=True, exist_ok=True)
    lm = open_lm(checked.spec, cache=ResponseCache(runs / "cache" / "responses.sqlite"))
    search = open_search(runs, dataset.corpus, config, summarizer=open_summarizer(lm, checked.spec))
    program = build_program(study.program, search, abstain=dataset.abstains)
    exported = ExportedProgram(
        folder=study_file.parent,
        manifest={},
        config=config,
        spec=checked.spec,
        metric=study.metric,
        dataset=dataset.path,
        program_name=study.program,
        program=program,
        lm=lm,
        adapter=FORMATS[config.prompt_format](),
    )
    return exported, dataset
