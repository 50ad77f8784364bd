from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.inference.pareto import front, hypervolume, representatives

points = st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), min_size=1, max_size=12)


@given(points)
def test_the_front_is_what_nothing_dominates(rows: list[tuple[float, ...]]) -> None:
    losses = np.array(rows)
    kept = front(losses)
    for number, row in enumerate(rows):
        beaten = any(all(a <= b for a, b in zip(o, row, strict=True)) and o != row for o in rows)
        repeated = row in rows[:number]
        assert (number in kept) == (not beaten and not repeated)


def test_hypervolume_is_the_area_to_the_corner() -> None:
    assert hypervolume(np.array([[0.1, 0.1]])) == pytest.approx(1.0)
    assert hypervolume(np.array([[0.1, 0.6], [0.6, 0.1]])) == pytest.approx(1.0 - 0.25)
    assert hypervolume(np.array([[0.1, 0.6], [0.6, 0.1], [0.7, 0.7]])) == pytest.approx(1.0 - 0.25)


def test_representatives_keep_the_first_and_skip_what_adds_nothing() -> None:
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4], [0.41, 0.41], [0.9, 0.9]])
    assert representatives(losses, 1) == [2]
    assert sorted(representatives(losses, 5)) == [0, 1, 2]
    assert representatives(losses, 2, first=[4])[0] == 4
    assert representatives(losses[:1], 3) == [0]


def test_representatives_are_near_the_best_choice() -> None:
    from itertools import combinations

    generator = np.random.default_rng(1)
    for _ in range(20):
        losses = generator.random((9, 2))
        losses = (losses - losses.min(axis=0)) / np.ptp(losses, axis=0)
        best = max(hypervolume(losses[list(chosen)]) for chosen in combinations(range(9), 3))
        assert hypervolume(losses[representatives(losses, 3)]) >= 0.63 * best
