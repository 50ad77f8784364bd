"""The search as a whole, on scores whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from optimize.searching.point import Point
from optimize.searching.proposals import Proposals
from optimize.searching.search import STALE, Search
from optimize.settings.study import Space
from programs.config import PipelineConfig
from tests.simulated import BASELINE, CLONES, SimulatedBench, explore

SPACE = Space(
    chunk_size=[64, 96, 128, 192, 256],
    retriever=["dense"],
    reranker=["none"],
    retrieve_k=[8],
    top_k=[1, 2, 3, 4, 5, 6],
    prompt_format=["chat"],
)
ALL = 10**9


def planted(config: PipelineConfig, candidate: str) -> float:
    return 0.25 * (config.chunk_size == 128) + 0.25 * (config.top_k == 4)


def begun(
    bench: SimulatedBench,
    points: Sequence[Mapping[str, Any]] = CLONES[::3],
    proposals: Proposals | None = None,
    candidates: Sequence[str] = ("bare",),
    trials: int | None = None,
) -> Search:
    search = Search(bench, proposals, bench.examples["search"], candidates, trials=trials)
    search.begin(BASELINE, candidates[0])
    search.lay(points)
    return search


def steps(search: Search, count: int = ALL) -> None:
    while count > 0 and search.step():
        count -= 1


def state(search: Search) -> list[tuple[str, tuple[str, str], int]]:
    return [(point.unit, point.key, len(point.rows.rows)) for point in search.trials]


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_best_point_with_a_third_of_the_questions(seed: int) -> None:
    whole = len(CLONES) * 32
    search, _ = explore(SimulatedBench(seed, effect=planted, calls=whole // 3))
    assert (search.leader().config.chunk_size, search.leader().config.top_k) == (128, 4)


def test_a_setting_that_is_better_gets_more_questions() -> None:
    search, _ = explore(SimulatedBench(0, effect=lambda config, _: 0.35 * (config.chunk_size == 128)))
    asked = {size: sum(len(p.rows.rows) for p in search.trials if p.config.chunk_size == size) for size in (64, 128)}
    assert asked[128] > 1.5 * asked[64]
    assert search.leader().config.chunk_size == 128


def test_questions_are_asked_in_one_order_each_trial_beginning_further_on() -> None:
    bench = SimulatedBench(0, calls=200)
    search, baseline = explore(bench)
    order = [example.id for example in bench.examples["search"]]
    assert [row.example_id for row in baseline.rows.rows] == order
    for number, point in enumerate(search.trials):
        first = search.rung * (number % 4)
        asked = (order[first:] + order[:first])[: len(point.rows.rows)]
        assert [row.example_id for row in point.rows.rows] == asked
        assert len(point.rows.rows) % search.rung == 0
    assert len(search.trials[0].rows.rows) > 0
    assert [point.unit for point in search.trials] == [f"trial-{n:04d}" for n in range(len(search.trials))]


def test_it_stops_when_everything_is_asked() -> None:
    search, _ = explore(SimulatedBench(0, calls=ALL), CLONES[:3])
    assert search.finished
    assert [len(point.rows.rows) for point in search.trials] == [32, 32, 32]


@pytest.mark.parametrize("calls", [32, 40, 100])
def test_the_budget_stops_it(calls: int) -> None:
    bench = SimulatedBench(0, calls=calls)
    search, _ = explore(bench)
    assert bench.spent <= calls and calls - bench.spent < search.rung
    assert not search.finished


def tokens_of(point: Point) -> int:
    return point.config.chunk_size * point.config.top_k


def dearer_is_better(config: PipelineConfig, candidate: str) -> float:
    """Three hundred tokens bring nearly everything, five times as many a little more."""
    tokens = config.chunk_size * config.top_k
    return 0.4 * min(1.0, tokens / 300) + 0.06 * tokens / 1536


@pytest.mark.parametrize("seed", range(3))
def test_where_tokens_count_a_cheap_point_reaches_confirm(seed: int) -> None:
    plain, frugal = (explore(SimulatedBench(seed, effect=dearer_is_better, calls=600), frugal=f)[0] for f in (0, 1))
    finalists = frugal.finalists(3)
    cheap = min(finalists, key=tokens_of)
    assert tokens_of(cheap) <= 400
    # It is good for what it costs, and it does not stand there instead of the best.
    assert dearer_is_better(cheap.config, "") > 0.2
    assert frugal.leader() in finalists

    def asked_of_cheap(search: Search) -> int:
        return sum(len(point.rows.rows) for point in search.trials if tokens_of(point) <= 400)

    assert asked_of_cheap(frugal) > asked_of_cheap(plain)


def test_what_fails_is_asked_no_more_and_never_leads() -> None:
    bench = SimulatedBench(
        0,
        effect=lambda config, _: 0.4 * (config.chunk_size == 128),
        fails=lambda config, example_id: config.chunk_size == 128 and int(example_id.split("-")[1]) % 2 == 0,
        calls=ALL,
    )
    search, _ = explore(bench, CLONES[::5])
    broken = [point for point in search.trials if point.config.chunk_size == 128]
    assert broken and all(point.failing and len(point.rows.rows) == search.rung for point in broken)
    assert search.leader().config.chunk_size != 128
    assert all(point.config.chunk_size != 128 for point in search.finalists(5))
    assert all(told.params["chunk_size"] != 128 for told in search.told())
    assert len([point for point in search.trials if not point.failing]) == len(search.trials) - len(broken) > 0


def test_a_single_failure_may_be_chance() -> None:
    bench = SimulatedBench(0, fails=lambda config, example_id: config == one and example_id == "search-1", calls=ALL)
    one = PipelineConfig.from_params(dict(CLONES[0])).canonical()
    search, _ = explore(bench, CLONES[:2])
    (point,) = (point for point in search.trials if point.config == one)
    assert not point.failing and len(point.rows.rows) == 32
    assert len(point.asked().scores) == 31 and 1 not in point.asked().questions


def test_all_that_fails_leaves_the_baseline_in_front() -> None:
    bench = SimulatedBench(0, fails=lambda config, _: config != BASELINE, calls=ALL)
    search, baseline = explore(bench, CLONES[:4])
    assert search.finished and len(search.trials) == 4
    assert search.leader() is baseline
    assert search.finalists(3) == []


def test_no_more_trials_than_wished() -> None:
    bench = SimulatedBench(0, calls=ALL)
    search = begun(bench, trials=3)
    steps(search)
    assert [len(point.rows.rows) for point in search.trials] == [32, 32, 32]
    assert search.finished


def test_an_interrupted_search_goes_on_as_it_would_have() -> None:
    undisturbed = begun(SimulatedBench(3, effect=planted), proposals=Proposals(SPACE, "tpe", 0))
    steps(undisturbed)
    bench = SimulatedBench(3, effect=planted)
    for count in (3, 11):
        # Each search is a new process with the same bench, which knows what was answered.
        steps(begun(bench, proposals=Proposals(SPACE, "tpe", 0)), count)
    again = begun(bench, proposals=Proposals(SPACE, "tpe", 0))
    steps(again)
    assert state(again) == state(undisturbed)
    assert bench.spent <= 400


def test_more_budget_goes_on_where_less_ended() -> None:
    heard: list[list[tuple[str, int]]] = []
    for calls in (150, 300):
        bench, steps_of = SimulatedBench(1, calls=calls), list[tuple[str, int]]()

        def listen(point: Point, leader: Point, steps_of: list[tuple[str, int]] = steps_of) -> None:
            steps_of.append((point.unit, len(point.rows.rows)))

        search = Search(bench, None, bench.examples["search"], ["bare"], listen)
        search.begin(BASELINE, "bare")
        search.lay(CLONES)
        steps(search)
        heard.append(steps_of)
    assert len(heard[0]) < len(heard[1])
    assert heard[1][: len(heard[0])] == heard[0]


def test_another_candidate_on_the_same_pipeline_is_another_point() -> None:
    bench = SimulatedBench(0, effect=lambda _, candidate: 0.4 * (candidate == "demos"))
    search = begun(bench, candidates=["bare", "demos"])
    steps(search)
    assert search.leader().candidate == "demos"
    assert len({point.key for point in search.trials}) == len(search.trials)


def test_candidates_that_come_later_are_tried() -> None:
    bench = SimulatedBench(0, effect=lambda _, candidate: 0.4 * (candidate == "late"), calls=500)
    search = begun(bench)
    steps(search, 20)
    assert {point.candidate for point in search.trials} == {"bare"}
    search.add_candidates(["late", "bare"])
    steps(search)
    assert search.leader().candidate == "late"
    assert len(search.points) == 2 * len({point.config for point in search.points})


def test_settings_that_mean_the_same_are_one_point() -> None:
    bench = SimulatedBench(0, calls=ALL)
    same = [{"chunk_size": 64, "top_k": 2, "retrieve_k": number} for number in (5, 10, 20)]
    search = begun(bench, same)
    steps(search)
    assert len(search.trials) == 1


def test_the_baseline_in_the_space_is_no_trial() -> None:
    bench = SimulatedBench(0, calls=ALL)
    search = begun(bench, [BASELINE.as_params(), CLONES[0]])
    steps(search)
    assert [point.config for point in search.trials] == [PipelineConfig.from_params(dict(CLONES[0])).canonical()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_proposals_fill_the_table(sampler: str) -> None:
    bench = SimulatedBench(2, effect=planted, calls=700)
    search = begun(bench, [], Proposals(SPACE, sampler, 0))
    steps(search, 30)
    assert len(search.trials) >= 6
    assert all(point.params is not None for point in search.trials)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_space_that_is_used_up_ends_the_search(sampler: str) -> None:
    """A sampler that proposes what is there already is asked again: all nine points are found."""
    settings: dict[str, Any] = {"retriever": ["dense"], "reranker": ["none"], "retrieve_k": [8]}
    small = Space(chunk_size=[64, 128, 256], top_k=[1, 2, 3], prompt_format=["chat"], **settings)
    search = begun(SimulatedBench(0, calls=ALL), [], Proposals(small, sampler, 0))
    steps(search)
    assert search.finished and len(search.trials) == 9 < STALE


def test_what_optuna_hears_is_what_is_believed() -> None:
    bench = SimulatedBench(0, calls=300)
    search = begun(bench, proposals=Proposals(SPACE, "tpe", 0))
    steps(search)
    by_unit = {point.unit: point for point in search.trials}
    assert {told.unit for told in search.told()} == set(by_unit)
    for told in search.told():
        point = by_unit[told.unit]
        assert told.values[0] == pytest.approx(search.estimate(point)[0])
        assert told.whole == (len(point.rows.rows) == 32)
        assert max(told.steps) == len(point.rows.rows)
        assert told.steps[max(told.steps)] == pytest.approx(point.rows.mean()[0])
