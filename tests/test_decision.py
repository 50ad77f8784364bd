"""Confirm and test, each with points whose answers are written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.searching import decision
from optimize.searching.belief import Described, Floats
from optimize.searching.decision import Confirmed, Rules, confirm, open_test, unit_of
from optimize.searching.point import Point
from optimize.searching.search import Search
from programs.config import PipelineConfig

BASELINE = PipelineConfig(chunk_size=512, top_k=3).canonical()
SIZES = {"search": 16, "confirm": 60, "test": 80}
EXAMPLES = {
    phase: [Example(f"{phase}-{n}", f"question {n}", ("x",)) for n in range(size)] for phase, size in SIZES.items()
}
GROUPS = {
    example.id: f"{example.id.rsplit('-')[0]}-{n // 3}" for one in EXAMPLES.values() for n, example in enumerate(one)
}
RULES = Rules(finalists=3, tolerance=0.05, smallest_effect=0.05)
STEPS = {"search": 0.1, "confirm": -0.1, "test": 0.05}
HARD = {e.id: STEPS[phase] * (n % 5 - 2) for phase, examples in EXAMPLES.items() for n, e in enumerate(examples)}
"""How hard a question is; the hard ones of confirm stand where the easy ones of search do."""


@dataclass
class Bench:
    """Answers with a score that is the point's own mean, less what the question is hard, and a little noise.

    Attributes:
        means: `top_k` -> mean score; by phase where that is a mapping.
        noise: Standard deviation of a score.
        fails: (top_k, phase) -> share of failures.
        guards: top_k -> mean of the guarded metric.
        units: What was asked.
    """

    means: Mapping[int, float | Mapping[str, float]]
    noise: float = 0.02
    fails: Mapping[tuple[int, str], float] = field(default_factory=dict)
    guards: Mapping[int, float] = field(default_factory=dict)
    units: list[tuple[str, int]] = field(default_factory=list)

    def ask(
        self, unit: str, phase: Any, config: PipelineConfig, candidate: str, examples: Sequence[Example]
    ) -> Evaluation:
        self.units.append((unit, len(examples)))
        part = "search" if phase == "baseline" else phase
        return Evaluation(tuple(self._row(config, part, example) for example in examples))

    def affords(self, unit: str, count: int) -> bool:
        return True

    def foresee(self, config: PipelineConfig, examples: Sequence[Example]) -> Floats:
        return np.zeros((len(examples), 1))

    def tokens(self, config: PipelineConfig, candidate: str) -> float:
        return 100.0 * config.top_k

    def _row(self, config: PipelineConfig, phase: str, example: Example) -> Row:
        number = int(example.id.rsplit("-")[1])
        if number < self.fails.get((config.top_k, phase), 0.0) * SIZES[phase]:
            return Row(example.id, None, None, calls=1, error="told to fail")
        mean = self.means[config.top_k]
        level = mean[phase] if isinstance(mean, Mapping) else mean
        drawn = np.random.default_rng([config.top_k, number, len(phase)]).standard_normal(2)
        score = float(np.clip(level - HARD[example.id] + self.noise * drawn[0], 0, 1))
        also = {"other": float(self.guards.get(config.top_k, 0.5) + 0.01 * drawn[1])}
        return Row(example.id, score, "x", prompt_tokens=100 * config.top_k, calls=1, also=also)


def decide(bench: Bench, rules: Rules = RULES, tops: Sequence[int] = (1, 2, 4)) -> tuple[Confirmed, Point]:
    search = Search(bench, None, EXAMPLES["search"], ["bare"])
    baseline = search.begin(BASELINE, "bare")
    search.lay([{"chunk_size": 128, "top_k": top} for top in tops])
    while search.step():
        pass
    return confirm(bench, search, baseline, EXAMPLES, GROUPS, rules), baseline


def chosen(bench: Bench, rules: Rules = RULES) -> int:
    point = decide(bench, rules)[0].chosen
    assert point is not None
    return point.config.top_k


def valid(evaluation: Evaluation) -> bool:
    return evaluation.valid


def opened(bench: Bench, answers: Callable[[Evaluation], bool] = valid, top: int = 4) -> decision.Tested:
    config = PipelineConfig(chunk_size=128, top_k=top).canonical()
    described = Described((), np.zeros((SIZES["search"], 1)))
    old, new = (Point(one, "bare", None, described, 0.0) for one in (BASELINE, config))
    return open_test(bench, old, new, EXAMPLES["test"], GROUPS, RULES, answers)


def test_the_best_is_chosen() -> None:
    confirmed, _ = decide(Bench({1: 0.2, 2: 0.3, 3: 0.2, 4: 0.5}))
    assert confirmed.chosen is not None and confirmed.chosen.config.top_k == 4
    assert confirmed.choice is not None and "the best estimate" in confirmed.choice.why
    estimates = confirmed.choice.estimates
    assert max(range(4), key=lambda place: estimates[place][0]) == confirmed.choice.place
    assert estimates[confirmed.choice.place][1] == pytest.approx(0.0, abs=1e-6)


def test_a_cheaper_one_that_is_shown_to_be_about_as_good_wins() -> None:
    bench = Bench({1: 0.49, 2: 0.3, 3: 0.2, 4: 0.5})
    assert chosen(bench) == 1
    why = decide(bench)[0].choice
    assert why is not None and "the cheapest of 2" in why.why and "0.05" in why.why


def test_without_tolerance_the_best_wins() -> None:
    assert chosen(Bench({1: 0.49, 2: 0.3, 3: 0.2, 4: 0.5}), Rules(3, 0.0, 0.05)) == 4


def test_a_cheaper_one_that_is_not_shown_so_does_not_win() -> None:
    """The same means, but scores so noisy that 60 questions cannot show that it loses 0.05 at most."""
    bench = Bench({1: 0.475, 2: 0.2, 3: 0.2, 4: 0.5}, noise=0.1)
    assert chosen(bench) == 4
    assert chosen(Bench({1: 0.475, 2: 0.2, 3: 0.2, 4: 0.5}, noise=0.01)) == 1


def test_cheap_is_what_the_study_says() -> None:
    assert chosen(Bench({1: 0.49, 2: 0.3, 3: 0.2, 4: 0.5}), Rules(3, 0.05, 0.05, cost="calls")) == 4


def test_the_baseline_can_win() -> None:
    confirmed, baseline = decide(Bench({1: 0.2, 2: 0.2, 3: 0.6, 4: 0.3}))
    assert confirmed.chosen is baseline


def test_a_finalist_that_only_the_search_liked_is_not_chosen() -> None:
    """Lucky on the 16 search questions, bad on the 60 confirm questions."""
    bench = Bench({1: 0.3, 2: {"search": 0.6, "confirm": 0.2}, 3: 0.3, 4: 0.45})
    assert chosen(bench) == 4


def test_finalists_are_asked_the_confirm_questions_under_names_of_their_own() -> None:
    bench = Bench({1: 0.2, 2: 0.3, 3: 0.2, 4: 0.5})
    confirmed, baseline = decide(bench, Rules(2, 0.05, 0.05))
    assert confirmed.contenders[0] is baseline and len(confirmed.contenders) == 3
    names = [unit for unit, count in bench.units if count == SIZES["confirm"]]
    assert names == [unit_of("confirm", point) for point in confirmed.contenders]
    assert len(set(names)) == 3


def test_a_finalist_that_fails_a_guard_is_not_chosen() -> None:
    means, fallen = {1: 0.2, 2: 0.4, 3: 0.2, 4: 0.5}, {4: 0.2}
    assert chosen(Bench(means, guards=fallen)) == 4
    guarded = Rules(3, 0.05, 0.05, guards={"other": 0.1})
    assert chosen(Bench(means, guards=fallen), guarded) == 2
    confirmed, _ = decide(Bench(means, guards=fallen), guarded)
    assert confirmed.choice is not None
    place = [point.config.top_k for point in confirmed.contenders].index(4)
    assert np.isnan(confirmed.choice.estimates[place][0])


def test_a_guard_that_may_have_fallen_a_little_excludes_nobody() -> None:
    means = {1: 0.2, 2: 0.4, 3: 0.2, 4: 0.5}
    assert chosen(Bench(means, guards={4: 0.45}), Rules(3, 0.05, 0.05, guards={"other": 0.1})) == 4


def test_a_finalist_of_which_too_much_fails_is_not_chosen() -> None:
    assert chosen(Bench({1: 0.2, 2: 0.4, 3: 0.2, 4: 0.5}, fails={(4, "confirm"): 0.1})) == 2
    assert chosen(Bench({1: 0.2, 2: 0.4, 3: 0.2, 4: 0.5}, fails={(4, "confirm"): 0.04})) == 4


def test_when_all_finalists_fail_there_is_no_choice() -> None:
    confirmed, _ = decide(Bench({1: 0.2, 2: 0.4, 3: 0.2, 4: 0.5}, fails={(top, "confirm"): 0.2 for top in (1, 2, 4)}))
    assert confirmed.choice is None and confirmed.chosen is None


def test_trials_with_failures_are_no_finalists() -> None:
    """One failed question of 16 is too much, though the search went on with it."""
    bench = Bench({1: 0.2, 2: 0.4, 3: 0.2, 4: 0.5}, fails={(4, "search"): 1 / 16})
    confirmed, _ = decide(bench)
    assert {point.config.top_k for point in confirmed.contenders} == {1, 2, 3}


def test_without_finalists_nothing_is_asked() -> None:
    bench = Bench(dict.fromkeys((1, 2, 3, 4), 0.4), fails={(top, "search"): 0.5 for top in (1, 2, 4)})
    confirmed, _ = decide(bench)
    assert confirmed.choice is None and confirmed.contenders == ()
    assert all(count <= SIZES["search"] for _, count in bench.units)


@pytest.mark.parametrize(("gain", "verdict"), [(0.2, "better"), (-0.2, "worse"), (0.0, "not shown better")])
def test_the_test_says_what_it_shows(gain: float, verdict: str) -> None:
    found = opened(Bench({3: 0.3, 4: 0.3 + gain}))
    assert found.verdict == verdict
    assert found.difference.n == SIZES["test"]
    assert found.difference.clusters == 27
    assert found.difference.mean == pytest.approx(gain, abs=0.05)


def test_too_few_or_too_noisy_questions_show_nothing() -> None:
    assert opened(Bench({3: 0.3, 4: 0.32}, noise=0.5)).verdict == "underpowered"


def test_questions_that_failed_on_one_side_are_left_out_on_both() -> None:
    bench = Bench({3: 0.3, 4: 0.5}, fails={(3, "test"): 0.025, (4, "test"): 0.05})
    found = opened(bench)
    assert found.difference.n == SIZES["test"] - 4
    assert found.verdict == "better"
    whole = opened(Bench({3: 0.3, 4: 0.5}))
    assert found.difference.mean == pytest.approx(whole.difference.mean, abs=0.01)


@pytest.mark.parametrize("top", [3, 4])
def test_too_many_failures_void_the_comparison(top: int) -> None:
    found = opened(Bench({3: 0.3, 4: 0.5}, fails={(top, "test"): 0.1}))
    assert found.verdict is None
    assert found.difference.n == 72


def test_a_baseline_that_answers_with_nothing_voids_it_too() -> None:
    found = opened(Bench({3: 0.3, 4: 0.5}), answers=lambda evaluation: False)
    assert found.verdict is None and found.difference.mean > 0
