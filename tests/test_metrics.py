from __future__ import annotations

import sys
from pathlib import Path

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.example import Example
from optimize.metrics import METRICS, abstains, exact_match, load_metric, normalize, token_f1
from programs.errors import RagwrightError


def example(*answers: str) -> Example:
    return Example("q1", "Who?", answers)


def says(answer: object) -> dspy.Prediction:
    return dspy.Prediction(answer=answer)


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("The Eiffel-Tower!", ["eiffeltower"], 1, 1),
        ("Ada", ["Bob", "ada"], 1, 1),
        ("Eiffel Tower is in Paris", ["Paris"], 0, 1 / 3),
        ("in the city of Paris", ["Paris, France", "the city"], 0, 2 * (1 / 4) * 1 / (1 / 4 + 1)),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("dog", ["cat"], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 1),
        ("", ["The"], 1, 1),
        ("北京", ["北京"], 1, 1),
        ("北京市", ["北京"], 0, 0),
        ("cafe\u0301", ["caf\u00e9"], 1, 1),
        ("unanswerable", ["cat"], 0, 0),
    ],
)
def test_answers_are_scored_as_squad_does(answer: str, golds: list[str], exact: float, f1: float) -> None:
    assert exact_match(example(*golds), says(answer)) == exact
    assert token_f1(example(*golds), says(answer)) == pytest.approx(f1)


@pytest.mark.parametrize(
    "answer", ["", " \n", "Unanswerable.", "Not stated", "I don't know.", "I don\u2019t know", "..."]
)
def test_abstaining_is_right_where_nothing_answers(answer: str) -> None:
    assert abstains(answer)
    assert exact_match(example(), says(answer)) == token_f1(example(), says(answer)) == 1
    assert exact_match(example("cat"), says(answer)) == token_f1(example("cat"), says(answer)) == 0


@pytest.mark.parametrize("answer", ["cat", "the unknown soldier", "nobody knows"])
def test_answer_is_wrong_where_nothing_answers(answer: str) -> None:
    assert not abstains(answer)
    assert exact_match(example(), says(answer)) == token_f1(example(), says(answer)) == 0


@pytest.mark.parametrize("answer", [None, 5, ["cat"]])
@pytest.mark.parametrize("metric", METRICS.values())
def test_prediction_without_text_is_a_failure_and_no_zero(metric: object, answer: object) -> None:
    assert callable(metric)
    with pytest.raises(RagwrightError, match="no text in 'answer', got"):
        metric(example("cat"), says(answer))
    with pytest.raises(RagwrightError, match="no text in 'answer', got None"):
        metric(example("cat"), dspy.Prediction(reasoning="hm"))


words = st.lists(st.sampled_from(["cat", "dog", "The", "sat", "on,"]), max_size=6).map(" ".join)


@given(words, words)
def test_f1_is_the_harmonic_mean_of_the_overlap(answer: str, gold: str) -> None:
    said, right = normalize(answer).split(), normalize(gold).split()
    common = sum(min(said.count(word), right.count(word)) for word in set(said))
    expected = 2 * common / (len(said) + len(right)) if said and right else float(said == right)
    assert token_f1(example(gold), says(answer)) == pytest.approx(expected)
    assert exact_match(example(gold), says(answer)) == (said == right)


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=20), max_size=3))
def test_scores_are_bounded_and_the_gold_answer_is_right(answer: str, golds: list[str]) -> None:
    for metric in METRICS.values():
        assert 0 <= metric(example(*golds), says(answer)) <= 1
        assert all(metric(example(*golds), says(gold)) == 1 for gold in golds)


def test_metric_is_found_by_name() -> None:
    assert load_metric("token_f1") is token_f1
    with pytest.raises(RagwrightError, match="metric: 'f1' is neither one of exact_match, token_f1 nor module:score"):
        load_metric("f1")


OWN = """
def length(example, prediction):
    return len(prediction.answer) / 10

constant = 5
"""


def test_own_metric_is_imported_and_its_scores_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metric_of_a_test.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    score = load_metric("own_metric_of_a_test:length")
    assert score(example(), says("12345")) == 0.5
    with pytest.raises(RagwrightError, match=r"returned 1\.1 for 'q1'; scores lie in \[0, 1\]"):
        score(example(), says("12345678901"))
    with pytest.raises(RagwrightError, match="is not callable"):
        load_metric("own_metric_of_a_test:constant")
    with pytest.raises(RagwrightError, match="has no 'nothing'"):
        load_metric("own_metric_of_a_test:nothing")
