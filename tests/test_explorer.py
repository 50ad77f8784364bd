"""Search and compiling in turns, with a compiler that hands out made-up candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from optimize.searching.explorer import CYCLES, MOST_SHARE, SHARE, Explorer, Turn, turns_of
from optimize.searching.search import Search
from programs.config import PipelineConfig
from tests.simulated import BASELINE, CLONES, Effect, SimulatedBench, nothing

FIRST = PipelineConfig.from_params(dict(CLONES[0])).canonical()


@dataclass
class Compiling:
    """Makes one candidate a turn and writes down when.

    Attributes:
        bench: Counts what the search spends.
        cost: Calls of a turn.
        unaffordable: From this turn on there is no money left.
        turns: Number, optimizer, pipeline and questions asked until then, of each turn.
    """

    bench: SimulatedBench
    cost: int = 60
    unaffordable: int | None = None
    turns: list[tuple[int, str, PipelineConfig, int]] = field(default_factory=list)

    def __call__(self, number: int, turn: Turn, config: PipelineConfig) -> tuple[Sequence[str], int] | None:
        self.turns.append((number, turn.name, config, self.bench.spent))
        if self.unaffordable is not None and number >= self.unaffordable:
            return None
        return [f"{turn.name}-{number}"], self.cost


def explored(
    turns: Sequence[Turn],
    effect: Effect = nothing,
    calls: int = 600,
    cost: int = 60,
    unaffordable: int | None = None,
    points: Sequence[dict[str, int]] = CLONES[::4],
) -> tuple[Compiling, Search]:
    bench = SimulatedBench(0, effect, calls=calls)
    search = Search(bench, None, bench.examples["search"], ["bare"])
    baseline = search.begin(BASELINE, "bare")
    search.lay(points)
    compiling = Compiling(bench, cost, unaffordable)
    Explorer(search, turns, compiling, "bare", baseline, FIRST).run()
    return compiling, search


def gain(amount: float) -> Effect:
    """What compiling is worth."""
    return lambda _, candidate: amount * (candidate != "bare")


def test_optimizers_come_cheapest_first_and_else_as_in_the_file() -> None:
    costs = {"mipro": 200, "bootstrap": 40, "labeled": 0, "copro": 40}
    turns = turns_of({name: {"k": 1} for name in costs}, lambda name, params: costs[name] * params["k"])
    assert [turn.name for turn in turns] == ["labeled", "bootstrap", "copro", "mipro"]
    assert turns[0] == Turn("labeled", {"k": 1}, 0)


def test_a_free_optimizer_has_its_turn_before_the_first_trial() -> None:
    compiling, _ = explored([Turn("labeled", {}, 0)], cost=0)
    number, name, config, spent = compiling.turns[0]
    assert (number, name, config, spent) == (0, "labeled", FIRST, 32)


@pytest.mark.parametrize("most", [40, 60, 120])
def test_a_turn_waits_until_the_search_has_spent_enough(most: int) -> None:
    compiling, search = explored([Turn("bootstrap", {}, most)], cost=most)
    spent = compiling.turns[0][3]
    assert SHARE * spent >= most > SHARE * (spent - search.rung)
    assert compiling.turns[0][2] in {point.config for point in search.points}


def test_what_is_made_goes_into_the_search() -> None:
    _, search = explored([Turn("bootstrap", {}, 60)], gain(0.4))
    assert {"bare", "bootstrap-0"} <= {point.candidate for point in search.trials}
    assert search.leader().candidate != "bare"


def test_where_compiling_gains_more_its_next_turn_comes_sooner() -> None:
    turns = [Turn("bootstrap", {}, 60), Turn("mipro", {}, 150)]
    second = {amount: explored(turns, gain(amount), calls=900)[0].turns[1][3] for amount in (0.4, 0.0)}
    # What it takes at the very least and at the usual share: 60 + 150 calls beside those of the search.
    assert second[0.4] < 210 / SHARE <= second[0.0] + 100
    assert second[0.4] >= 210 / MOST_SHARE
    assert second[0.4] < second[0.0]


def test_where_the_pipeline_gains_more_compiling_waits_longer() -> None:
    turns = [Turn("bootstrap", {}, 60), Turn("mipro", {}, 150)]

    def pipeline(config: PipelineConfig, candidate: str) -> float:
        return 0.4 * (config != BASELINE)

    compiling, _ = explored(turns, pipeline, calls=800)
    assert len(compiling.turns) == 1 or compiling.turns[1][3] > 210 / SHARE
    assert compiling.bench.spent >= 790


def test_the_second_cycle_is_on_another_pipeline_only() -> None:
    turns = [Turn("labeled", {}, 0), Turn("bootstrap", {}, 40)]
    compiling, _ = explored(turns, lambda c, _: 0.5 * (c.chunk_size == 256 and c.top_k > 4), calls=10**9, cost=20)
    names = [name for _, name, _, _ in compiling.turns]
    assert names[:2] == ["labeled", "bootstrap"] and len(names) <= CYCLES * 2
    pairs = [(name, config) for _, name, config, _ in compiling.turns]
    assert len(set(pairs)) == len(pairs)
    assert pairs[0] == ("labeled", FIRST) and len({config for name, config in pairs if name == "labeled"}) == 2
    compiling, _ = explored(turns, calls=10**9, cost=20, points=CLONES[:1])
    alone = [(name, config) for _, name, config, _ in compiling.turns]
    assert len(set(alone)) == len(alone)
    assert {config for _, config in alone} <= {BASELINE, FIRST}


def test_what_cannot_be_afforded_is_not_tried_again_and_the_search_goes_on() -> None:
    turns = [Turn("bootstrap", {}, 40), Turn("mipro", {}, 60)]
    compiling, search = explored(turns, calls=600, unaffordable=0)
    assert [number for number, *_ in compiling.turns] == [0]
    assert {point.candidate for point in search.points} == {"bare"}
    assert compiling.bench.spent > 500 or search.finished
    compiling, _ = explored(turns, calls=600, unaffordable=1)
    assert [number for number, *_ in compiling.turns] == [0, 1]


def test_when_nothing_is_left_to_search_compiling_waits_no_longer() -> None:
    """Two points are soon asked everything; an optimizer that takes a thousand calls then has its turn all the same."""
    compiling, search = explored([Turn("gepa", {}, 1000)], calls=10**9, points=CLONES[:2])
    assert compiling.turns[0][3] == 3 * 32
    assert "gepa-0" in {point.candidate for point in search.trials}
    assert search.finished


def test_without_optimizers_it_is_a_search() -> None:
    compiling, search = explored([], calls=200)
    assert compiling.turns == [] and compiling.bench.spent == 200
    assert search.trials


def test_turns_come_at_the_same_time_whatever_the_budget() -> None:
    turns = [Turn("labeled", {}, 0), Turn("bootstrap", {}, 60), Turn("mipro", {}, 100)]
    less, more = (explored(turns, gain(0.2), calls=calls)[0].turns for calls in (150, 800))
    assert 1 <= len(less) < len(more)
    assert more[: len(less)] == less
