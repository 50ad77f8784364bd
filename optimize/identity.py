"""What makes two studies the same one: what their results depend on."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.dataset import Dataset
from optimize.study_config import StudyConfig
from programs.catalogue import build_program, source_identity
from programs.config import fingerprint
from programs.lm import LMSpec
from programs.reranking import NEEDS_LM


def study_fingerprint(study: StudyConfig, dataset: Dataset, spec: LMSpec, parts: Mapping[str, bool]) -> str:
    """Twelve hex digits over data, space, sources of program and metric, LM, seed and the parts done.

    The budget is not in it, since more of it continues a study, and neither is the place of the data.
    """
    content = study.model_dump(mode="json", exclude={"budget", "trials", "lm", "dataset"})
    sources = [source_identity(study.program), source_identity(study.metric)]
    return fingerprint([content, dataset.fingerprint, spec.identity(), sources, dict(parts)])


def calls_per_question(study: StudyConfig, dataset: Dataset) -> int:
    """LM calls of one answer at most: one for every predictor of the program, and one for a reranker that asks."""
    program = build_program(study.program, lambda _: (), abstain=dataset.abstains)
    rerankers = {*study.space.reranker, study.baseline.reranker}
    return max(1, len(program.predictors())) + bool(rerankers & NEEDS_LM)
