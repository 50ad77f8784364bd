"""What each setting is worth, as far as the answers of a search tell: which of its values score higher, and how surely.

The model is the search's own (`optimize.searching.belief`): a question's score is explained by how hard the question
is, by the settings and the candidate that it was answered with, and by what is left of each configuration and each
point. It is fitted anew to the answers in the run folder, without what retrieval is foreseen to find: that would take
over what a chunk size or a retriever is worth because of what it finds.

Simulated with 40 trials of 6 to 24 questions each and five settings beside the candidate: of settings that are worth
nothing 3 % are shown to matter (0 to 10 %, setting by setting); one that is worth 0.2 from its worst to its best value
is shown in 95 % of the searches, and comes first in 98 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimize.evaluation.outcome import Entry
from optimize.searching.belief import Asked, Belief, Described, Effect

MOST_ENTRIES = 300
"""So many are looked at, those that were asked most: the time that a fit takes grows with the cube of their number."""

_INTERVAL = 1.959964
"""Standard deviations on either side of a mean that hold 95 % of a Gaussian."""


@dataclass(frozen=True, slots=True)
class ValueWorth:
    """What one value of a setting is worth.

    Attributes:
        value: The value.
        gain: Score above the plain average over the setting's values that were tried.
        low: Lower end of its 95 % interval.
        high: Upper end.
        trials: Configurations with a candidate that had it, where the setting has an effect.
        asked: Questions that they were asked.
    """

    value: Any
    gain: float
    low: float
    high: float
    trials: int
    asked: int


@dataclass(frozen=True, slots=True)
class SettingWorth:
    """What it matters which value a setting has.

    Attributes:
        name: The setting, or `candidate`.
        values: Numbers by size, others by rising gain.
        best: The value that is believed to be best.
        worst: The value that is believed to be worst.
        gap: How far the best is believed to be above the worst.
        low: Lower end of the gap's 95 % interval.
        high: Upper end.
    """

    name: str
    values: tuple[ValueWorth, ...]
    best: Any
    worst: Any
    gap: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval of the gap leaves out 0."""
        return self.low > 0

    @property
    def is_number(self) -> bool:
        """Whether the values have an order and a distance."""
        return all(_is_number(one.value) for one in self.values)


@dataclass(frozen=True, slots=True)
class Worths:
    """What all settings are worth.

    Attributes:
        settings: Those of which more than one value was tried, the largest gap first.
        entries: Configurations with a candidate that were looked at.
        left_out: How many were not, because there are too many.
        answers: Scores that all of this is learned from.
    """

    settings: tuple[SettingWorth, ...]
    entries: int
    left_out: int
    answers: int


def worths(entries: Sequence[Entry], scores: Mapping[str, Mapping[str, float]]) -> Worths | None:
    """What each setting is worth.

    Args:
        entries: The baseline and the trials of a search.
        scores: Unit -> example id -> score.

    Returns:
        None where no setting had two values that were asked anything.
    """
    asked = [entry for entry in entries if scores.get(entry.unit)]
    chosen = sorted(asked, key=lambda entry: -len(scores[entry.unit]))[:MOST_ENTRIES]
    tried = _tried(chosen)
    if not tried:
        return None
    places = {i: n for n, i in enumerate(dict.fromkeys(i for entry in chosen for i in scores[entry.unit]))}
    answers = [_asked(entry, scores[entry.unit], places) for entry in chosen]
    belief = Belief(answers, len(places))
    counts = {entry.unit: len(scores[entry.unit]) for entry in chosen}
    settings = [_setting(belief, len(places), name, values, chosen, counts) for name, values in tried.items()]
    ranked = sorted(settings, key=lambda one: (-round(one.gap, 9), one.name))
    return Worths(tuple(ranked), len(chosen), len(asked) - len(chosen), sum(counts.values()))


def _tried(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """Setting -> the values that were tried, where there is more than one."""
    found: dict[str, dict[Any, None]] = {}
    for entry in entries:
        for name, value in effective(entry).items():
            found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items() if len(values) > 1}


def effective(entry: Entry) -> dict[str, Any]:
    """The settings that have an effect in an entry's configuration, and the candidate.

    The others are canonical, and follow from those: a `retrieve_k` without a reranker is the `top_k`, and would take
    over a part of what that is worth.
    """
    c, found = entry.config, entry.params
    idle = {
        "retrieve_k": c.reranker == "none" and not c.cutoff,
        "embedder": not c.needs_vectors,
        "dense_weight": c.retriever != "weighted",
        **dict.fromkeys(("chunk_size", "chunk_overlap", "expansion"), c.splitter == "whole"),
    }
    return {name: value for name, value in found.items() if not idle.get(name)}


def _asked(entry: Entry, scores: Mapping[str, float], places: Mapping[str, int]) -> Asked:
    key = entry.config.fingerprint()
    own: tuple[Effect, ...] = (("configuration", key), ("point", (key, entry.candidate)))
    described = Described((*effective(entry).items(), *own), np.zeros((len(places), 0)))
    questions = np.array([places[i] for i in scores], dtype=np.int64)
    return Asked(described, questions, np.array(list(scores.values()), dtype=float))


def _setting(
    belief: Belief, questions: int, name: str, values: Sequence[Any], entries: Sequence[Entry], asked: Mapping[str, int]
) -> SettingWorth:
    alone = [Described(((name, value),), np.zeros((questions, 0))) for value in values]
    means, design = belief.about(alone)
    # What all of them have in common, the level and the questions, falls out of a difference.
    gains, from_average = means - means.mean(), design - design.mean(axis=0)
    spreads = np.sqrt(belief.variances(from_average))
    best, worst = int(np.argmax(gains)), int(np.argmin(gains))
    gap = float(gains[best] - gains[worst])
    half = _INTERVAL * math.sqrt(float(belief.variances(design[best : best + 1] - design[worst : worst + 1])[0]))
    having = [(effective(entry).get(name), asked[entry.unit]) for entry in entries]
    trials = Counter(value for value, _ in having)
    questions_of = {v: sum(count for value, count in having if value == v) for v in values}
    found = [
        ValueWorth(v, float(g), float(g - _INTERVAL * s), float(g + _INTERVAL * s), trials[v], questions_of[v])
        for v, g, s in zip(values, gains, spreads, strict=True)
    ]
    numbers = all(_is_number(value) for value in values)
    found.sort(key=lambda one: (one.value if numbers else one.gain, str(one.value)))
    return SettingWorth(name, tuple(found), values[best], values[worst], gap, gap - half, gap + half)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
