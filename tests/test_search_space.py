from __future__ import annotations

import optuna
import pytest

from optimize.settings.space import CANDIDATE, choose, distributions, largest_context, space_size, whole_sampler
from optimize.settings.study import Range, Space, StudyConfig
from programs.config import PipelineConfig
from programs.errors import RagwrightError

SPACE = Space(chunk_size=Range(low=32, high=256, log=True), top_k=[1, 2, 3], retriever=["dense", "sparse"])
CANDIDATES = ["bare-1", "labeled-2"]


def points(seed: int, count: int, sampler: str) -> list[dict[str, object]]:
    """The points of the first trials, with the same scores every time."""
    study = optuna.create_study(direction="maximize")
    found = []
    for number in range(count):
        study.sampler = whole_sampler(sampler, seed, number)
        trial = study.ask()
        choose(trial, SPACE, CANDIDATES)
        study.tell(trial, (number * 7 % 11) / 11)
        found.append(trial.params)
    return found


def test_single_values_are_no_parameters() -> None:
    assert set(distributions(SPACE, CANDIDATES)) == {"chunk_size", "top_k", "retriever", "reranker", CANDIDATE}
    assert CANDIDATE not in distributions(SPACE, ["bare-1"])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "nsga2"])
def test_the_sampler_depends_on_seed_and_number_only(sampler: str) -> None:
    assert points(0, 14, sampler) == points(0, 14, sampler)
    assert points(0, 14, sampler) != points(1, 14, sampler)
    assert len({str(point) for point in points(0, 14, sampler)}) > 4


def test_choose_gives_a_canonical_configuration_within_the_space() -> None:
    study = optuna.create_study()
    for _ in range(20):
        config, candidate = choose(study.ask(), SPACE, CANDIDATES)
        assert 32 <= config.chunk_size <= 256 and config.top_k in (1, 2, 3) and candidate in CANDIDATES
        assert config == config.canonical()


def test_sizes() -> None:
    assert space_size(StudyConfig(name="x", dataset=".", space=SPACE), 2) == 225 * 3 * 2 * 2 * 2
    assert largest_context(SPACE) == 256 * 3


def test_equal_pipelines_have_equal_fingerprints() -> None:
    one = PipelineConfig(retriever="sparse", reranker="none", retrieve_k=10, embedder="wordllama")
    other = PipelineConfig(retriever="sparse", reranker="none", retrieve_k=40, embedder="openai/x")
    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint() != PipelineConfig(retriever="dense").fingerprint()
    assert PipelineConfig(reranker="mmr", top_k=5, retrieve_k=2).canonical().retrieve_k == 5


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(RagwrightError, match=r"'chunksize'.*chunk_size"):
        PipelineConfig.from_params({"chunksize": 3})
