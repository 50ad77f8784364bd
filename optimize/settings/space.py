"""From a study's space to one point of it: a configuration and a candidate."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from optimize.settings.study import Range, Space, StudyConfig
from programs.config import PipelineConfig
from programs.errors import MissingExtraError
from programs.expansion import PARENT_CHUNKS

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

STARTUP_TRIALS = 8
"""Random trials before a sampler begins to learn."""

POPULATION = 16
"""Points of one generation of NSGA-II."""

CANDIDATE = "candidate"
"""The parameter name of the compiled candidate, beside the fields of `PipelineConfig`."""


def distributions(space: Space, candidates: Sequence[str]) -> dict[str, BaseDistribution]:
    """The Optuna distribution of every parameter; those with a single value are left out.

    Lists stay lists, so that the dashboard shows the values themselves.
    """
    from optuna.distributions import CategoricalDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name in type(space).model_fields:
        values = getattr(space, name)
        if isinstance(values, Range):
            found[name] = IntDistribution(values.low, values.high, log=values.log, step=values.step)
        elif len(values) > 1:
            found[name] = CategoricalDistribution(values)
    if len(candidates) > 1:
        found[CANDIDATE] = CategoricalDistribution(list(candidates))
    return found


def choose(trial: optuna.Trial, space: Space, candidates: Sequence[str]) -> tuple[PipelineConfig, str]:
    """Ask the sampler for every parameter: the canonical configuration and the candidate's id."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    params: dict[str, Any] = fixed_params(space)
    candidate = candidates[0]
    for name, distribution in distributions(space, candidates).items():
        if isinstance(distribution, CategoricalDistribution):
            value = trial.suggest_categorical(name, distribution.choices)
        else:
            ints = cast(IntDistribution, distribution)
            value = trial.suggest_int(name, ints.low, ints.high, step=ints.step, log=ints.log)
        if name == CANDIDATE:
            candidate = str(value)
        else:
            params[name] = value
    return PipelineConfig.from_params(params).canonical(), candidate


def fixed_params(space: Space) -> dict[str, Any]:
    """The settings that have one value only."""
    values = {name: getattr(space, name) for name in type(space).model_fields}
    return {name: found[0] for name, found in values.items() if isinstance(found, list) and len(found) == 1}


def space_size(study: StudyConfig, candidates: int) -> int:
    """Number of points, equal configurations counted as often as they are written."""
    sizes = []
    for name in type(study.space).model_fields:
        values = getattr(study.space, name)
        sizes.append((values.high - values.low) // values.step + 1 if isinstance(values, Range) else len(values))
    return math.prod(sizes) * candidates


def largest_context(space: Space) -> int:
    """Most tokens of passages that any point of the space hands to the LM; with `whole` documents more is possible."""
    return _largest(space.chunk_size) * _largest(space.top_k) * max(map(widening, space.expansion))


def widening(expansion: str) -> int:
    """How many chunk sizes a widened passage has at most, where its parts do not jut out."""
    return {"none": 1, "neighbours": 3, "parent": PARENT_CHUNKS}[expansion]


def mean_context(space: Space) -> float:
    """Tokens of passages that a point of the space hands to the LM on average, were all chunks full."""
    return _middle(space.chunk_size) * _middle(space.top_k)


def _middle(values: list[int] | Range) -> float:
    return (values.low + values.high) / 2 if isinstance(values, Range) else sum(values) / len(values)


def _largest(values: list[int] | Range) -> int:
    return values.high if isinstance(values, Range) else max(values)


def whole_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """A sampler for one trial that chooses all parameters together, seeded by the study's seed and that number.

    `grid` goes through all points without repeating one, in random order.

    Raises:
        MissingExtraError: `gp` without torch.
    """
    from optuna import samplers

    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
    if name == "random":
        return samplers.RandomSampler(seed=own_seed)
    if name == "grid":
        return samplers.BruteForceSampler(seed=own_seed)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=own_seed, population_size=POPULATION)
    if name == "gp":
        if importlib.util.find_spec("torch") is None:
            raise MissingExtraError("sampler gp", "gp")
        return samplers.GPSampler(seed=own_seed, n_startup_trials=STARTUP_TRIALS)
    return samplers.TPESampler(seed=own_seed, n_startup_trials=STARTUP_TRIALS, multivariate=True)
