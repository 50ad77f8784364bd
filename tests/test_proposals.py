from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optimize.searching.proposals import Proposals, Told
from optimize.settings.study import Range, Space
from programs.config import PipelineConfig
from programs.errors import MissingExtraError

SPACE = Space(
    chunk_size=[64, 128, 256],
    retriever=["dense", "sparse"],
    reranker=["none"],
    retrieve_k=[8],
    top_k=Range(low=1, high=6),
)
SMALL = Space(chunk_size=[64, 128], retriever=["dense"], reranker=["none"], retrieve_k=[8], top_k=[1, 2, 3])
ONE = ["bare"]
SAMPLERS = ["tpe", "random", "grid", "nsga2"]


def told(params: dict[str, Any], value: float, number: int, candidate: str = "bare", whole: bool = True) -> Told:
    steps = {4: value, 8: value}
    return Told({**params, "candidate": candidate}, (value,), f"trial-{number:04d}", steps, whole)


def asked(sampler: str, count: int, seed: int = 0, space: Space = SPACE, candidates: list[str] = ONE) -> list[Told]:
    """As many proposals, each told with what it is worth before the next: the top_k."""
    proposals, found = Proposals(space, sampler, seed), list[Told]()
    for number in range(count):
        params, _, candidate = proposals.ask(found, candidates)
        params.pop("candidate", None)
        found.append(told(params, params["top_k"] / 10, number, candidate))
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("candidates", [ONE, ["bare", "demos"]])
def test_proposals_are_points_of_the_space(sampler: str, candidates: list[str]) -> None:
    proposals, found = Proposals(SPACE, sampler, 0), list[Told]()
    for number in range(12):
        params, config, candidate = proposals.ask(found, candidates)
        assert params["chunk_size"] in (64, 128, 256) and params["top_k"] in range(1, 7)
        assert params["retriever"] in ("dense", "sparse") and params["splitter"] == "recursive"
        assert candidate in candidates
        settings = {name: value for name, value in params.items() if name != "candidate"}
        assert config == PipelineConfig.from_params(settings).canonical()
        found.append(told(settings, 0.1 * (number % 5), number, candidate))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_proposals(sampler: str) -> None:
    assert asked(sampler, 14) == asked(sampler, 14)
    assert asked(sampler, 14) != asked(sampler, 14, seed=1)


def test_proposals_go_on_instead_of_repeating_themselves() -> None:
    """The sampler is made anew for each: seeded alike, it would say the same thing every time."""
    points = {(point.params["chunk_size"], point.params["top_k"]) for point in asked("random", 12)}
    assert len(points) > 5


def test_what_was_told_matters() -> None:
    """TPE, told that a high top_k is good or bad, proposes accordingly."""

    def proposed(sign: int) -> float:
        proposals = Proposals(SPACE, "tpe", 0)
        space = [{"chunk_size": size, "retriever": "dense", "top_k": top} for size in (64, 128) for top in range(1, 7)]
        known = [told(point, 0.5 + sign * 0.05 * int(point["top_k"]), n) for n, point in enumerate(space)]
        return sum(proposals.ask(known, ONE)[0]["top_k"] for _ in range(12)) / 12

    assert proposed(+1) > proposed(-1) + 1.5


def test_the_grid_repeats_nothing_while_there_is_something_new() -> None:
    points = [(point.params["chunk_size"], point.params["top_k"]) for point in asked("grid", 6, space=SMALL)]
    assert len(set(points)) == 6


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_the_gaussian_process_asks_for_its_extra() -> None:
    with pytest.raises(MissingExtraError, match="gp"):
        Proposals(SPACE, "gp", 0).ask([], ONE)


def kept(file: Path, name: str = "villages") -> optuna.Study:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    return optuna.load_study(study_name=name, storage=storage)


POINT = {"chunk_size": 64, "retriever": "dense", "top_k": 2}


def test_the_journal_has_whole_trials_and_partial_ones(tmp_path: Path) -> None:
    points = [told(POINT, 0.4, 0), told(POINT | {"top_k": 3}, 0.2, 1, whole=False)]
    Proposals(SPACE, "tpe", 0).keep(tmp_path / "journal.log", "villages", points, ONE)
    study = kept(tmp_path / "journal.log")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [trial.user_attrs["unit"] for trial in study.trials] == ["trial-0000", "trial-0001"]
    assert study.trials[1].intermediate_values == {4: 0.2, 8: 0.2}
    assert study.trials[0].params == POINT
    assert study.best_value == 0.4
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


def test_the_journal_is_of_the_last_start(tmp_path: Path) -> None:
    proposals = Proposals(SPACE, "tpe", 0)
    for points in ([told(POINT, 0.4, 0)], [told(POINT, 0.5, 0), told(POINT | {"top_k": 3}, 0.2, 1)]):
        proposals.keep(tmp_path / "journal.log", "villages", points, ONE)
    assert [trial.value for trial in kept(tmp_path / "journal.log").trials] == [0.5, 0.2]


def test_the_journal_tells_candidates_apart(tmp_path: Path) -> None:
    points = [told(POINT, 0.4, 0, "bare"), told(POINT, 0.6, 1, "demos")]
    Proposals(SPACE, "tpe", 0).keep(tmp_path / "journal.log", "villages", points, ["bare", "demos"])
    assert kept(tmp_path / "journal.log").best_params["candidate"] == "demos"


def test_several_objectives(tmp_path: Path) -> None:
    points = [
        Told({**POINT, "top_k": top, "candidate": "bare"}, (top / 10, 100.0 * top), f"trial-{top:04d}", {}, top > 1)
        for top in (1, 2, 3)
    ]
    proposals = Proposals(SPACE, "nsga2", 0, minimized=1)
    assert proposals.ask(points, ONE)[0]["top_k"] in range(1, 7)
    proposals.keep(tmp_path / "journal.log", "villages", points, ONE)
    assert [d.name for d in kept(tmp_path / "journal.log").directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(kept(tmp_path / "journal.log").trials) == 3
