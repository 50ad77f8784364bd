"""How many LM calls the parts of a study take at most, known before the first one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from optimize.compiling.table import predicted_calls
from optimize.data.dataset import Dataset
from optimize.metrics.table import judge_calls
from optimize.settings.study import StudyConfig
from programs.catalogue import build_program
from programs.reranking import NEEDS_LM


def calls_per_question(study: StudyConfig, dataset: Dataset) -> int:
    """LM calls that one answer and its scoring take at most, all repeats together.

    One for every predictor of the program, one for a reranker that asks, and those of the metrics; guards are scored
    only where the study ends, and count as if they were everywhere.
    """
    rerankers = {*study.space.reranker, study.baseline.reranker}
    answering = _predictors(study, dataset) + bool(rerankers & NEEDS_LM)
    judging = judge_calls(study.metric) + sum(map(judge_calls, study.guards))
    return study.repeats * (answering + judging)


def turn_calls(study: StudyConfig, dataset: Dataset, train: int) -> Callable[[str, Any], int]:
    """Optimizer's name and parameters -> LM calls that one turn of it takes at most, the judge's included.

    Args:
        study: The study file.
        dataset: The data.
        train: Training examples.
    """
    predictors, judging = _predictors(study, dataset), judge_calls(study.metric)

    def most(name: str, params: Any) -> int:
        calls = predicted_calls(name, params, predictors, train)
        # Every run of the program takes as many calls as it has predictors, and may be scored.
        return calls + judging * math.ceil(calls / predictors)

    return most


def _predictors(study: StudyConfig, dataset: Dataset) -> int:
    """LM calls of one run of the program."""
    return max(1, len(build_program(study.program, lambda _: (), abstain=dataset.abstains).predictors()))
