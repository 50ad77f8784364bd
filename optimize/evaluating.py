"""Score one thing outside a study: an export that is in use, or a study's baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.dataset import SPLITS, Dataset, load_dataset, require_answers
from optimize.evaluate import evaluate
from optimize.example import Example
from optimize.metrics import load_metric
from optimize.outcome import Summary, summarize
from optimize.splits import balanced_order, group_examples
from programs.config import PipelineConfig
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from optimize.exported import ExportedProgram


def evaluate_target(target: Path, split: str, limit: int | None, runs: Path) -> Summary:
    """Score an export folder or a study's baseline on a split of its data set.

    The test split of an export's study has given its verdict; scoring on it again tunes nothing, but choosing by such
    scores does.

    Args:
        target: The folder or the study file.
        split: `train`, `validation` or `test`.
        limit: At most so many questions, spread over documents.
        runs: Where indexes and responses are kept.

    Raises:
        RagwrightError: The target or the split cannot be used.
    """
    if split not in SPLITS:
        raise RagwrightError(f"--split: unknown split {split!r}; choices: {', '.join(SPLITS)}.")
    if target.is_dir():
        from optimize.exported import load_export

        exported = load_export(target, runs)
        return _score(exported, load_dataset(exported.dataset), split, limit)
    exported, dataset = _baseline(target, runs)
    return _score(exported, dataset, split, limit)


def _score(exported: ExportedProgram, dataset: Dataset, split: str, limit: int | None) -> Summary:
    require_answers(dataset)
    groups = group_examples(dataset.examples, {document.id: document for document in dataset.corpus.documents})
    examples: Sequence[Example] = balanced_order(getattr(dataset, split), groups, seed=0)[:limit]
    with exported.context():
        rows = evaluate(exported.program, examples, load_metric(exported.metric), exported.spec.threads)
    return summarize(rows, groups)


def _baseline(study_file: Path, runs: Path) -> tuple[ExportedProgram, Dataset]:
    """A study's baseline in the shape of an export, so that both are scored by the same code."""
    from optimize.check import check_study
    from optimize.exported import ExportedProgram
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
        program=program,
        lm=lm,
        adapter=FORMATS[config.prompt_format](),
    )
    return exported, dataset
