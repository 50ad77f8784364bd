from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from optimize.data.dataset import Dataset
from optimize.evaluation.outcome import Entry, Outcome
from optimize.runs.run_dir import RunDir
from optimize.searching.starting import EARLIER, PORTFOLIO, starting_points
from optimize.settings.study import Range, Space, StudyConfig, dump_study
from programs.config import PipelineConfig
from tests.outcomes import Studied

SPACE = Space(chunk_size=[64, 128, 512], retriever=["dense", "sparse"], reranker=["none"], top_k=[1, 2, 5])
SHORTLIST = [{"chunk_size": 64, "retriever": "sparse", "top_k": 1, "prompt_format": "compact"}]


@dataclass(frozen=True)
class Folders:
    """A finished study, and the folder of a new one beside it."""

    outcome: Outcome
    dataset: Dataset
    run: RunDir

    def finished(self, name: str, outcome: Outcome) -> None:
        """Another study that ended so."""
        folder = RunDir(self.run.path.parent / name)
        folder.write_json("outcome.json", outcome.as_json())
        study = StudyConfig(name=outcome.study, dataset=".", program=outcome.program, metric=outcome.metric)
        folder.write_text("study.yaml", dump_study(study))

    def begin(
        self, space: Space = SPACE, shortlist: Sequence[dict[str, Any]] = (), **changes: Any
    ) -> list[dict[str, Any]]:
        study = StudyConfig(name="towers", dataset=str(self.dataset.path), space=space, **changes)
        return starting_points(study, self.dataset, self.run, shortlist)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    studied = Studied(tmp_path)
    dataset = replace(studied.dataset, name=studied.outcome.dataset)
    return Folders(studied.outcome, dataset, RunDir(tmp_path / "runs" / "towers-new"))


def trial(number: int, estimate: float | None, candidate: str = "bare", **settings: Any) -> dict[str, Any]:
    return {"number": number, "estimate": estimate, "candidate": candidate, "settings": settings}


def ended(outcome: Outcome, *trials: dict[str, Any]) -> Outcome:
    """The study, had its trials been these."""

    def entry(made: dict[str, Any]) -> Entry:
        config = PipelineConfig(**{"prompt_format": "compact", **made["settings"]}).canonical()
        known = outcome.trials[0]
        return replace(
            known,
            unit=f"trial-{made['number']:04d}",
            config=config,
            candidate=made["candidate"],
            estimate=made["estimate"],
        )

    return replace(outcome, trials=tuple(map(entry, trials)))


def settings(points: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(point["chunk_size"], point["retriever"], point["top_k"]) for point in points]


def test_without_screen_and_earlier_studies_it_is_the_portfolio(folders: Folders) -> None:
    points = folders.begin()
    assert settings(points) == [(128, "dense", 2), (128, "sparse", 2), (128, "dense", 5)]
    assert len(points) < len(PORTFOLIO), "two of them are the same here"


def test_with_a_screen_there_is_no_portfolio(folders: Folders) -> None:
    assert settings(folders.begin(shortlist=SHORTLIST)) == [(64, "sparse", 1)]


def test_the_best_of_earlier_studies_come_after_the_screen_and_before_the_portfolio(folders: Folders) -> None:
    one = ended(folders.outcome, trial(0, 0.2, chunk_size=512, top_k=5), trial(1, 0.5, chunk_size=64, top_k=2))
    other = ended(
        folders.outcome,
        trial(0, 0.4, chunk_size=128, top_k=5),
        trial(1, 0.6, chunk_size=128, top_k=1),
        trial(2, 0.1, chunk_size=64, top_k=5),
    )
    folders.finished("towers-a", one)
    folders.finished("towers-b", other)
    best = [(128, "dense", 1), (64, "dense", 2), (128, "dense", 5)]
    assert len(best) == EARLIER
    assert settings(folders.begin(shortlist=SHORTLIST)) == [(64, "sparse", 1), *best]


def test_a_pipeline_that_was_best_with_several_candidates_counts_once(folders: Folders) -> None:
    same = [trial(n, 0.9, candidate=f"c{n}", chunk_size=64, top_k=2) for n in range(4)]
    folders.finished("towers-a", ended(folders.outcome, *same, trial(5, 0.3, chunk_size=128, top_k=5)))
    assert settings(folders.begin(shortlist=SHORTLIST))[1:] == [(64, "dense", 2), (128, "dense", 5)]


def test_what_a_test_has_shown_is_never_chosen_by(folders: Folders) -> None:
    known = ended(folders.outcome, trial(0, 0.2, chunk_size=512, top_k=5), trial(1, 0.5, chunk_size=64, top_k=2))
    found = []
    for score in (0.0, 1.0):
        assert known.test_winner is not None
        summary = replace(known.test_winner.summary, score=score)
        other = replace(known.test_winner, summary=summary, config=PipelineConfig(chunk_size=128, top_k=1))
        folders.finished("towers-a", replace(known, test_winner=other, winner=other, finalists=(other,)))
        found.append(settings(folders.begin(shortlist=SHORTLIST)))
        (folders.run.path / "start.json").unlink()
    assert found[0] == found[1] == [(64, "sparse", 1), (64, "dense", 2), (512, "dense", 5)]


@pytest.mark.parametrize("change", [{"dataset": "another"}, {"program": "multihop"}, {"metric": "exact_match"}])
def test_studies_of_something_else_have_nothing_to_say(folders: Folders, change: dict[str, str]) -> None:
    made = ended(folders.outcome, trial(0, 0.9, chunk_size=512, top_k=5))
    folders.finished("towers-a", replace(made, **change))  # type: ignore[arg-type]
    assert settings(folders.begin(shortlist=SHORTLIST)) == [(64, "sparse", 1)]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"study": 1}', "null"])
def test_outcomes_that_cannot_be_read_have_nothing_to_say(folders: Folders, content: str) -> None:
    RunDir(folders.run.path.parent / "towers-a").write_text("outcome.json", content)
    assert settings(folders.begin(shortlist=SHORTLIST)) == [(64, "sparse", 1)]


def test_a_study_that_goes_on_begins_with_the_same_points(folders: Folders) -> None:
    first = folders.begin(shortlist=SHORTLIST)
    folders.finished("towers-a", ended(folders.outcome, trial(0, 0.9, chunk_size=512, top_k=5)))
    assert folders.begin(shortlist=[]) == first
    assert json.loads((folders.run.path / "start.json").read_text(encoding="utf-8")) == first


def test_it_does_not_learn_from_itself(folders: Folders) -> None:
    folders.finished(folders.run.path.name, ended(folders.outcome, trial(0, 0.9, chunk_size=512, top_k=5)))
    assert settings(folders.begin(shortlist=SHORTLIST)) == [(64, "sparse", 1)]


SPACES = [
    SPACE,
    Space(),
    Space(chunk_size=Range(low=100, high=450, step=50), top_k=Range(low=1, high=9, step=5)),
    Space(chunk_size=Range(low=200, high=512, log=True), top_k=[2]),
    Space(chunk_size=[1024], retriever=["sparse"], reranker=["mmr"], top_k=[20]),
]


@pytest.mark.parametrize("space", SPACES)
def test_points_lie_inside_the_space(folders: Folders, space: Space) -> None:
    extreme = [trial(0, 0.9, chunk_size=8192, top_k=200), trial(1, 0.8, chunk_size=16, top_k=1, retriever="hybrid")]
    folders.finished("towers-a", ended(folders.outcome, *extreme))
    points = folders.begin(space)
    assert points
    for point in points:
        PipelineConfig.from_params(point)
        assert set(point) == set(Space.model_fields)
        for name, value in point.items():
            allowed = getattr(space, name)
            if isinstance(allowed, Range):
                assert value in range(allowed.low, allowed.high + 1, allowed.step), (name, value)
            else:
                assert value in allowed, (name, value)


def test_what_the_space_does_not_have_is_moved_to_the_nearest(folders: Folders) -> None:
    folders.finished("towers-a", ended(folders.outcome, trial(0, 0.9, chunk_size=400, top_k=3, retriever="hybrid")))
    assert settings(folders.begin(shortlist=SHORTLIST))[1:] == [(512, "dense", 2)]
