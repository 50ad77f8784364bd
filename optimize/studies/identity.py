"""What makes two studies the same one: what their results depend on."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.data.dataset import Dataset
from optimize.metrics.table import metric_identity
from optimize.settings.study import StudyConfig
from programs.catalogue import source_identity
from programs.config import fingerprint
from programs.lm import LMSpec


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
