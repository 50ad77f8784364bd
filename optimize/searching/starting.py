"""Where a search begins: the screen's short list, the best of earlier studies, and what usually does well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from optimize.data.dataset import Dataset
from optimize.evaluation.outcome import Outcome
from optimize.runs.run_dir import RunDir
from optimize.settings.space import fixed_params
from optimize.settings.study import Range, Space, StudyConfig, load_study
from programs.config import PipelineConfig
from programs.errors import RagwrightError

EARLIER = 3
"""Points that are taken over from earlier studies of the same data set."""

PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"retriever": "hybrid", "reranker": "maxsim", "chunk_size": 128, "top_k": 3},
    {"retriever": "sparse", "reranker": "none", "chunk_size": 128, "top_k": 2},
    {"retriever": "dense", "reranker": "lexical", "chunk_size": 256, "top_k": 2},
    {"retriever": "hybrid", "reranker": "none", "chunk_size": 256, "top_k": 4},
)
"""Settings that do well in general, tried first where there is no screen to say what does well here. What a space does
not have is moved to its nearest value, and what they leave open is the first value of the space."""


def starting_points(
    study: StudyConfig, dataset: Dataset, run: RunDir, shortlist: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Parameters of distinct points of the space, the most promising first.

    They are written down at the first start, so that a study that goes on begins with the same ones, whatever other
    studies have found in between. Earlier studies speak by their search scores only: what their test has shown is never
    chosen by.
    """
    kept: list[dict[str, Any]] | None = run.read_json("start.json")
    if kept is None:
        points = [*shortlist, *_earlier(study, dataset, run), *(() if shortlist else PORTFOLIO)]
        kept = list(_distinct(_within(study.space, point) for point in points))
        run.write_json("start.json", kept)
    return kept


def _earlier(study: StudyConfig, dataset: Dataset, run: RunDir) -> list[Mapping[str, Any]]:
    """The best points of earlier studies of this data set with this program and metric."""
    found: list[tuple[float, Mapping[str, Any]]] = []
    for file in sorted(run.path.parent.glob("*/outcome.json")):
        if file.parent == run.path:
            continue
        try:
            outcome = Outcome.from_json(RunDir(file.parent).read_json(file.name))
            metric = load_study(file.parent / "study.yaml").metric
        except (ValueError, TypeError, KeyError, RagwrightError):
            # Of another version; it has nothing to say here.
            continue
        if (outcome.dataset, outcome.program, metric) == (dataset.name, study.program, study.metric):
            found += [(trial.estimate or 0.0, trial.config.as_params()) for trial in outcome.trials]
    # A pipeline that did well with several candidates is one point.
    best = _distinct(dict(params) for _, params in sorted(found, key=lambda pair: -pair[0]))
    return list(islice(best, EARLIER))


def _within(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """The point with each setting at the nearest value that the space has."""
    chosen = dict(fixed_params(space))
    for name in type(space).model_fields:
        values = getattr(space, name)
        wanted = point.get(name)
        if isinstance(values, Range):
            steps = 0 if wanted is None else round((int(wanted) - values.low) / values.step)
            last = (values.high - values.low) // values.step
            chosen[name] = values.low + min(max(steps, 0), last) * values.step
        elif name not in chosen:
            numbers = isinstance(wanted, int | float) and all(isinstance(value, int | float) for value in values)
            nearest = min(values, key=lambda value: abs(value - wanted)) if numbers else values[0]
            chosen[name] = wanted if wanted in values else nearest
    return chosen


def _distinct(points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = set()
    for point in points:
        key = PipelineConfig.from_params(point).fingerprint()
        if key not in seen:
            seen.add(key)
            yield point
