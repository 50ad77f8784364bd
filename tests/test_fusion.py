from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.fusion import RRF_CONSTANT, fuse
from programs.types import Chunk, Passage, Span

RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6), max_size=4)


def ranking(ids: str | list[str], score: float = 0.5) -> list[Passage]:
    """Passages named by single letters, best first."""
    return [Passage(Chunk(name, Span(name, 0, 1), name), score) for name in ids]


def names(passages: list[Passage]) -> str:
    return "".join(passage.chunk.id for passage in passages)


def test_the_score_is_the_sum_of_the_reciprocal_ranks() -> None:
    fused = fuse([ranking("ab"), ranking("cba"), ranking("b")])
    assert names(fused) == "bac"
    sums = [1 / 62 + 1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 61]
    assert [passage.score for passage in fused] == pytest.approx(sums, rel=1e-12)


def test_what_two_rankings_have_in_common_goes_before_the_first_of_one() -> None:
    assert names(fuse([ranking("abc"), ranking("dce")])) == "cadbe"


def test_equal_sums_stay_in_the_order_of_the_rankings() -> None:
    assert names(fuse([ranking("zy"), ranking("ab")])) == "zayb"
    assert names(fuse([ranking("ab"), ranking("ba")])) == "ab"


def test_scores_of_the_rankings_do_not_matter() -> None:
    assert fuse([ranking("ab", 0.0), ranking("bc", 1e9)]) == fuse([ranking("ab", 7.0), ranking("bc", -3.0)])


def test_nothing_makes_nothing_and_one_ranking_stays_in_order() -> None:
    assert fuse([]) == fuse([[], []]) == []
    assert names(fuse([ranking("hgfa"), []])) == "hgfa"


@settings(derandomize=True)
@given(RANKINGS)
def test_every_chunk_comes_once_and_scores_descend(lists: list[list[str]]) -> None:
    fused = fuse(ranking(ids) for ids in lists)
    scores = [passage.score for passage in fused]
    assert sorted(names(fused)) == sorted({name for ids in lists for name in ids})
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= len(lists) / (RRF_CONSTANT + 1) + 1e-12 for score in scores)
