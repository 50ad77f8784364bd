"""What makes two studies the same one: what their results depend on."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.dataset import Dataset
from optimize.metrics import judge_calls, metric_identity
from optimize.study_config import StudyConfig
from programs.catalogue import build_program, source_identity
from programs.config import fingerprint
from programs.lm import LMSpec
from programs.reranking import NEEDS_LM


def study_fingerprint(
    study: StudyConfig, dataset: Dataset, specs: Mapping[str, LMSpec | None], parts: Mapping[str, bool]
) -> str:
    """Twelve hex digits over data, space, sources of program and metrics, the LM of each role, seed and the parts done.

    The budget is not in it, since more of it continues a study, and neither is the place of the data.
    """
    without = {"budget", "trials", "lm", "reflection_lm", "judge_lm", "dataset"}
    content = study.model_dump(mode="json", exclude=without)
    sources = [source_identity(study.program), metric_identity(study.metric), *map(metric_identity, study.guards)]
    lms = {role: spec.identity() for role, spec in specs.items() if spec is not None}
    return fingerprint([content, dataset.fingerprint, lms, sources, dict(parts)])


def calls_per_question(study: StudyConfig, dataset: Dataset) -> int:
    """LM calls that one answer and its scoring take at most, all repeats together.

    One for every predictor of the program, one for a reranker that asks, and those of the metrics; guards are scored
    only where the study ends, and count as if they were everywhere.
    """
    program = build_program(study.program, lambda _: (), abstain=dataset.abstains)
    rerankers = {*study.space.reranker, study.baseline.reranker}
    answering = max(1, len(program.predictors())) + bool(rerankers & NEEDS_LM)
    judging = judge_calls(study.metric) + sum(map(judge_calls, study.guards))
    return study.repeats * (answering + judging)
