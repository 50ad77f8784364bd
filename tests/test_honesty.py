"""The claim that a verdict is honest: the whole search, confirm and test, on scores whose truth is known.

Scores of two points correlate by about .6, questions come in groups of unequal size, and the baseline is one more of 31
points that are all equal, or all but those with one setting value or one candidate.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from tests.simulated import CLONES, Effect, SimulatedBench, decide, nothing

SIZES = {"search": 24, "confirm": 40, "test": 80}
CALLS = 200
"""For the search: about a quarter of what it would take to ask every point everything."""

EQUAL, PLANTED = 100, 60
"""Studies with each kind of scores."""


def study(seed: int, binary: bool, effect: Effect = nothing, candidates: tuple[str, ...] = ()) -> tuple[str, float]:
    """The verdict of a study, `kept` where that is the baseline, and the smallest effect that its test could show."""
    bench = SimulatedBench(seed, effect, binary, calls=CALLS, sizes=SIZES)
    points, names = (CLONES[::4], candidates) if candidates else (CLONES, ("bare",))
    _, tested = decide(bench, points, names)
    return ("kept", np.nan) if tested is None else (str(tested.verdict), tested.difference.detectable)


@cache
def equal(binary: bool) -> tuple[Counter[str], float]:
    """The verdicts on thirty copies of the baseline, and the smallest effect that a test could show, on average."""
    found = [study(seed, binary) for seed in range(EQUAL)]
    return Counter(verdict for verdict, _ in found), float(np.nanmean([detectable for _, detectable in found]))


def test_copies_of_the_baseline_are_called_better_as_rarely_as_said() -> None:
    """In 2.5 % at most, the one-sided level of the verdict; with 200 seeds up to 5 % is chance."""
    verdicts = equal(binary=True)[0] + equal(binary=False)[0]
    assert verdicts.total() == 2 * EQUAL
    assert verdicts["better"] <= 0.05 * verdicts.total(), verdicts
    assert verdicts["worse"] <= 0.05 * verdicts.total(), verdicts
    # The test is really opened: copies look better than they are.
    assert verdicts["kept"] < 0.5 * verdicts.total(), verdicts


@pytest.mark.parametrize("binary", [True, False], ids=["right or wrong", "continuous"])
def test_an_effect_of_one_and_a_half_times_what_the_test_can_show_is_found(binary: bool) -> None:
    """On one of five chunk sizes, and on one of four candidates; it is added to the mean score of .3.

    What the test can show is the mean of what the tests of equal points said that they could: .15 where answers are
    right or wrong, .10 where they are scored continuously.
    """
    size = 1.5 * equal(binary)[1]
    on_setting = Counter(
        study(seed, binary, lambda config, _: size * (config.chunk_size == 128))[0] for seed in range(PLANTED // 2)
    )
    on_candidate = Counter(
        study(seed, binary, lambda _, candidate: size * (candidate == "c2"), ("c0", "c1", "c2", "c3"))[0]
        for seed in range(PLANTED // 2)
    )
    assert on_setting["better"] + on_candidate["better"] >= 0.8 * PLANTED, (on_setting, on_candidate)
