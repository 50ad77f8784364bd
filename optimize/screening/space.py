"""What of a study's space can be screened without an LM, and its points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from optimize.settings.space import fixed_params
from optimize.settings.study import Range, Space, StudyConfig
from programs.config import PipelineConfig
from programs.prefix import NEEDS_LM as PREFIXES_WITH_LM
from programs.reranking import NEEDS_LM as RERANKERS_WITH_LM

ENUMERATED = 20_000
"""Up to so many points, equal ones counted as often as they are written, a space is gone through one by one."""

_WITH_LM = {"context_prefix": PREFIXES_WITH_LM, "reranker": RERANKERS_WITH_LM}


def screened_space(study: StudyConfig) -> tuple[Space, list[str]]:
    """The part of the space that needs no LM, and a line for each thing that is left to the search."""
    space, left = study.space, []
    changes: dict[str, Any] = {"prompt_format": space.prompt_format[:1]}
    if len(space.prompt_format) > 1:
        left.append("prompt_format: only an LM tells formats apart")
    for name, with_lm in _WITH_LM.items():
        values = getattr(space, name)
        if needing := [value for value in values if value in with_lm]:
            changes[name] = [value for value in values if value not in with_lm] or ["none"]
            left.append(f"{name} {', '.join(needing)}: needs an LM")
    if study.program not in ("rag",):
        left.append(
            f"program {study.program}: its LM may write other queries; here the question itself is searched for"
        )
    return space.model_copy(update=changes), left


def all_points(space: Space, most: int) -> list[dict[str, Any]] | None:
    """Every distinct point as parameters, or None where there are more than `most`.

    Of points that are the same pipeline the first is kept; those with one chunking stand together.
    """
    if math.prod(len(_values(space, name)) for name in type(space).model_fields) > ENUMERATED:
        return None
    found: dict[str, dict[str, Any]] = {}
    for point in _points(space):
        found.setdefault(PipelineConfig.from_params(point).fingerprint(), point)
        if len(found) > most:
            return None
    return list(found.values())


def dimensions(space: Space) -> dict[str, list[Any]]:
    """The settings that have more than one value, with their values."""
    fixed = fixed_params(space)
    names = [name for name in type(space).model_fields if name not in fixed]
    return {name: _ladder(_values(space, name)) for name in names}


def deepest(space: Space) -> int:
    """The largest `retrieve_k` or `top_k` of the space."""
    return max(*_values(space, "retrieve_k"), *_values(space, "top_k"))


def _points(space: Space) -> Iterator[dict[str, Any]]:
    names = list(type(space).model_fields)
    for values in itertools.product(*(_values(space, name) for name in names)):
        yield dict(zip(names, values, strict=True))


def _values(space: Space, name: str) -> Any:
    values = getattr(space, name)
    return range(values.low, values.high + 1, values.step) if isinstance(values, Range) else values


def _ladder(values: Any, most: int = 8) -> list[Any]:
    """All values of a list; of a long range a few, evenly spread."""
    values = list(values)
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
