from __future__ import annotations

import numpy as np
import pytest

from optimize.searching import belief
from optimize.searching.belief import LEVEL, USUAL_EFFECT, USUAL_NOISE, Asked, Belief, Described, Effect, Floats

QUESTIONS = 12
EVERY = np.arange(QUESTIONS)


def point(*effects: Effect, signals: Floats | None = None) -> Described:
    return Described(effects, np.zeros((QUESTIONS, 1)) if signals is None else signals)


def asked(described: Described, scores: Floats | float, questions: np.ndarray = EVERY) -> Asked:
    return Asked(described, questions, np.broadcast_to(np.asarray(scores, dtype=float), questions.shape).copy())


def mean_of(found: Belief, described: Described) -> float:
    return float(found.about([described])[0][0])


def spread_of(found: Belief, described: Described) -> float:
    return float(np.sqrt(found.variances(found.about([described])[1])[0]))


def noisy(mean: float, seed: int, size: int = QUESTIONS) -> Floats:
    return mean + 0.3 * np.random.default_rng(seed).standard_normal(size)


def test_it_is_bayesian_linear_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variances held at what is assumed, written down anew from the textbook (Bishop 2006, section 3.3)."""
    monkeypatch.setattr(belief, "ROUNDS", 0)
    generator = np.random.default_rng(0)
    points = [
        point(("size", size), ("top", top), signals=generator.random((QUESTIONS, 1))) for size in "ab" for top in "cd"
    ]
    rows, scores, told = [], [], []
    for number, one in enumerate(points[:3]):
        questions = generator.permutation(QUESTIONS)[: 4 + 3 * number]
        told.append(asked(one, generator.random(len(questions)), questions))
        for question, score in zip(questions, told[-1].scores, strict=True):
            settings = [float(("size", s) in one.effects) for s in "ab"] + [
                float(("top", t) in one.effects) for t in "cd"
            ]
            rows.append([1.0, one.signals[question, 0], *(question == EVERY), *settings])
            scores.append(score)
    design, prior = np.array(rows), np.array([LEVEL**2] * 2 + [USUAL_EFFECT**2] * (QUESTIONS + 4))
    # In the space of the scores instead of the effects: another way to the same numbers.
    gain = (
        np.diag(prior)
        @ design.T
        @ np.linalg.inv(design @ np.diag(prior) @ design.T + USUAL_NOISE**2 * np.eye(len(rows)))
    )
    mean, covariance = gain @ scores, np.diag(prior) - gain @ design @ np.diag(prior)
    found = Belief(told, QUESTIONS, points)
    for one in points:
        settings = [float(("size", s) in one.effects) for s in "ab"] + [float(("top", t) in one.effects) for t in "cd"]
        row = np.array([1.0, one.signals.mean(), *[1 / QUESTIONS] * QUESTIONS, *settings])
        assert mean_of(found, one) == pytest.approx(row @ mean, abs=1e-9)
        assert spread_of(found, one) == pytest.approx(np.sqrt(row @ covariance @ row), abs=1e-9)
    _, both = found.about(points)
    rows_of = [
        np.array(
            [
                1.0,
                p.signals.mean(),
                *[1 / QUESTIONS] * QUESTIONS,
                *[float(("size", s) in p.effects) for s in "ab"],
                *[float(("top", t) in p.effects) for t in "cd"],
            ]
        )
        for p in points
    ]
    assert np.allclose(found.covariance(both, both), [[x @ covariance @ y for y in rows_of] for x in rows_of])


def test_without_scores_it_is_the_prior() -> None:
    one, other = point(("size", 1)), point(("size", 2))
    found = Belief([], QUESTIONS, [one, other])
    values, design = found.about([one, other])
    assert values.tolist() == [0.0, 0.0]
    expected = LEVEL**2 + USUAL_EFFECT**2 / QUESTIONS + USUAL_EFFECT**2
    assert found.variances(design) == pytest.approx([expected, expected])
    assert found.noise == USUAL_NOISE**2


def test_a_lucky_point_is_drawn_back_to_what_its_settings_suggest() -> None:
    points = [point(("size", n % 3), ("point", n)) for n in range(12)]
    scores = [noisy(0.4, seed) for seed in range(12)]
    found = Belief([asked(one, mine) for one, mine in zip(points, scores, strict=True)], QUESTIONS)
    means = np.array([mine.mean() for mine in scores])
    best = int(means.argmax())
    assert means[best] > 0.5
    assert abs(mean_of(found, points[best]) - 0.4) < 0.5 * abs(means[best] - 0.4)
    values, _ = found.about(points)
    assert np.ptp(values) < 0.5 * np.ptp(means)


def test_a_true_difference_is_not_drawn_away() -> None:
    points = [point(("size", n % 3), ("point", n)) for n in range(12)]
    told = [asked(one, noisy(0.7 if n % 3 == 1 else 0.3, n)) for n, one in enumerate(points)]
    values, _ = Belief(told, QUESTIONS).about(points)
    assert values[1::3].min() - max(values[0::3].max(), values[2::3].max()) > 0.2


def test_a_partly_asked_point_is_judged_by_how_hard_its_questions_were() -> None:
    """Eight points find the first half easy; a ninth has answered only that, as the others did."""
    easy = np.where(EVERY < QUESTIONS // 2, 0.9, 0.1)
    whole = [point(("size", n)) for n in range(8)]
    partial = point(("size", 8))
    told = [asked(one, easy + 0.05 * noisy(0, n)) for n, one in enumerate(whole)]
    first = EVERY[: QUESTIONS // 2]
    found = Belief([*told, asked(partial, easy[first], first)], QUESTIONS)
    assert mean_of(found, partial) == pytest.approx(0.5, abs=0.03)


def test_a_combination_that_was_never_tried_is_predicted_from_its_settings() -> None:
    grid = {(a, b): point(("size", a), ("top", b), ("point", (a, b))) for a in range(3) for b in range(3)}
    truth = {(a, b): 0.3 + 0.2 * (a == 2) + 0.2 * (b == 2) for a, b in grid}
    told = [asked(grid[at], noisy(truth[at], 10 * at[0] + at[1])) for at in grid if at != (2, 2)]
    found = Belief(told, QUESTIONS, grid.values())
    assert max(grid, key=lambda at: mean_of(found, grid[at])) == (2, 2)
    assert 0.45 < mean_of(found, grid[2, 2]) < 0.75
    assert spread_of(found, grid[2, 2]) > spread_of(found, grid[1, 1])


def test_what_retrieval_found_is_learned_to_matter() -> None:
    generator = np.random.default_rng(3)
    signals = [generator.integers(0, 2, (QUESTIONS, 1)).astype(float) for _ in range(8)]
    points = [point(("size", n), signals=found) for n, found in enumerate(signals)]
    told = [asked(one, 0.1 + 0.6 * one.signals[:, 0] + 0.1 * noisy(0, n)) for n, one in enumerate(points)]
    unseen = [point(("size", 9), signals=np.full((QUESTIONS, 1), quality)) for quality in (0.0, 1.0)]
    found = Belief(told, QUESTIONS, unseen)
    assert mean_of(found, unseen[1]) - mean_of(found, unseen[0]) == pytest.approx(0.6, abs=0.1)
    useless = [asked(one.point, noisy(0.4, n)) for n, one in enumerate(told)]
    found = Belief(useless, QUESTIONS, unseen)
    assert abs(mean_of(found, unseen[1]) - mean_of(found, unseen[0])) < 0.3


def test_effects_that_show_no_difference_are_believed_to_be_small() -> None:
    """Evidence maximization: a setting that all scores are indifferent to makes an untried value of it no surprise."""
    same = [asked(point(("size", n)), noisy(0.4, n)) for n in range(10)]
    apart = [asked(point(("size", n)), noisy(0.9 * (n % 2), n)) for n in range(10)]
    unseen = point(("size", 99))
    assert spread_of(Belief(apart, QUESTIONS, [unseen]), unseen) > 3 * spread_of(
        Belief(same, QUESTIONS, [unseen]), unseen
    )


def test_more_answers_make_it_surer() -> None:
    one = point(("size", 1))
    spreads = [spread_of(Belief([asked(one, 0.5, EVERY[:n])], QUESTIONS), one) for n in (2, 6, 12)]
    assert spreads[0] > spreads[1] > spreads[2]


def test_it_is_the_same_to_the_last_bit_whatever_the_threads() -> None:
    from threadpoolctl import threadpool_limits

    def made() -> list[float]:
        generator = np.random.default_rng(5)
        points = [point(("size", n % 7), ("point", n), signals=generator.random((QUESTIONS, 1))) for n in range(60)]
        found = Belief([asked(one, generator.random(QUESTIONS)) for one in points], QUESTIONS)
        values, design = found.about(points)
        return [*values, *found.variances(design), found.noise]

    with threadpool_limits(limits=1):
        alone = made()
    with threadpool_limits(limits=4):
        assert made() == alone
