from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.data.dataset import load_dataset
from optimize.data.example import Example
from optimize.metrics.judges import JudgedMetric
from optimize.metrics.metric import NEEDS, Metric, Score
from optimize.metrics.table import (
    METRICS,
    abstains,
    check_metrics,
    exact_match,
    judge_calls,
    load_metric,
    metric_identity,
    metric_needs,
    metric_notes,
    normalize,
    token_f1,
)
from programs.errors import RagwrightError
from programs.lm import open_lm, parse_lm
from tests.judge_model import judge, passage
from tests.openai_server import OpenAIServer

UNJUDGED = {name: metric for name, metric in METRICS.items() if isinstance(metric, Metric)}


def example(*answers: str) -> Example:
    return Example("q1", "Who?", answers)


def says(answer: object, *passages: str) -> dspy.Prediction:
    return dspy.Prediction(answer=answer, passages=tuple(map(passage, passages)))


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=judge) as server:
        yield server


@pytest.fixture
def judge_lm(server: OpenAIServer) -> dspy.LM:
    server.requests.clear()
    return open_lm(parse_lm({"model": "openai/judge", "api_base": server.url, "retries": 0}), role="judge")


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest, judge_lm: dspy.LM) -> Metric:
    return load_metric(request.param, judge_lm)


# One suite for every metric of the table.


@pytest.mark.parametrize("gold", ["Gustave Eiffel built it", "Zürich – 北京市 🙂", "Адам и Ева", "हिन्दी भाषा"])
def test_right_answer_scores_one_and_a_wrong_one_less_and_says_why(metric: Metric, gold: str) -> None:
    asked = Example("q1", "Who built it?", (gold, "somebody else"))
    right = metric(asked, says(gold, "Nothing.", f"They say: {gold}."))
    wrong = metric(asked, says("a bomb in this weather", "Nothing."))
    assert right == pytest.approx(1.0, abs=0.01)
    assert 0 <= wrong < right - 0.3
    assert wrong.feedback
    if "answers" in metric.needs:
        assert f"expected one of {gold!r}, 'somebody else'; got 'a bomb in this weather'" in wrong.feedback


def test_declining_is_right_where_nothing_answers_and_no_judge_is_asked(metric: Metric, server: OpenAIServer) -> None:
    for answer in ("", "Unanswerable.", "I don\u2019t know"):
        assert metric(example(), says(answer, "Nothing.")) == 1
    assert not server.requests


def test_answer_is_wrong_where_nothing_answers(metric: Metric) -> None:
    score = metric(example(), says("a bomb in this weather", "Nothing."))
    assert score == 0
    assert score.feedback


def test_declining_is_wrong_where_there_is_an_answer(metric: Metric, server: OpenAIServer) -> None:
    score = metric(example("Ada"), says("unanswerable", "Ada wrote it."))
    # Who declines claims nothing that is not in the passages and harms nobody, and retrieval is judged alone.
    assert score == (1 if metric.name in ("groundedness", "safety", "retrieval_sufficiency") else 0)
    assert score == 1 or "declines" in score.feedback
    assert len(server.requests) == (metric.name == "retrieval_sufficiency")


@pytest.mark.parametrize("answer", [None, 5, ["cat"]])
def test_prediction_without_text_is_a_failure_and_no_zero(metric: Metric, answer: object) -> None:
    with pytest.raises(RagwrightError, match="no text in 'answer', got"):
        metric(example("cat"), says(answer, "cat"))
    with pytest.raises(RagwrightError, match="no text in 'answer', got None"):
        metric(example("cat"), dspy.Prediction(reasoning="hm"))


def test_what_is_needed_is_told(metric: Metric, server: OpenAIServer) -> None:
    assert metric.name in METRICS
    assert metric.needs <= set(NEEDS)
    assert metric.needs == METRICS[metric.name].needs == metric_needs(metric.name)
    assert ("judge" in metric.needs) == (metric.judge_calls > 0) == isinstance(METRICS[metric.name], JudgedMetric)
    metric(example("cat"), says("the cat sat", "A cat sat."))
    assert len(server.requests) == metric.judge_calls
    if "context" in metric.needs:
        with pytest.raises(RagwrightError, match="the prediction has no 'passages', which the metric needs"):
            metric(example("cat"), dspy.Prediction(answer="the cat sat"))
    else:
        metric(example("cat"), dspy.Prediction(answer="the cat sat"))


def test_finding_no_passage_is_no_failure(metric: Metric) -> None:
    assert 0 <= metric(example("cat"), says("the cat sat")) <= 1


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=20), max_size=3))
def test_scores_are_bounded_and_the_gold_answer_is_right(answer: str, golds: list[str]) -> None:
    for metric in UNJUDGED.values():
        score = metric(example(*golds), says(answer))
        assert 0 <= score <= 1
        assert score == 1 or score.feedback
        assert all(metric(example(*golds), says(gold)) == 1 for gold in golds)


# Declining.


@pytest.mark.parametrize(
    "answer", ["", " \n", "Unanswerable.", "Not stated", "I don't know.", "I don\u2019t know", "..."]
)
def test_abstaining_is_recognized(answer: str) -> None:
    assert abstains(answer)


@pytest.mark.parametrize("answer", ["cat", "the unknown soldier", "nobody knows", "北京", "🙂"])
def test_answer_that_does_not_abstain(answer: str) -> None:
    assert not abstains(answer)


@pytest.mark.parametrize(("gold", "f1"), [("Unknown", 1), ("the unknown soldier", 2 / 3), ("an answer", 0)])
def test_words_of_declining_that_stand_in_the_gold_answer_are_an_answer(gold: str, f1: float) -> None:
    assert token_f1(example(gold), says("unknown")) == pytest.approx(f1)


# The score.


def test_score_is_a_number_with_words() -> None:
    score = Score(0.25, "too short")
    assert (score, score.value, score.feedback) == (0.25, 0.25, "too short")
    assert type(score.value) is float
    assert score + 1 == 1.25 and score < 0.5 and score >= 0.2
    assert json.loads(json.dumps(score)) == 0.25
    assert f"{score:.2f} {score}" == "0.25 0.25"
    assert copy.deepcopy(score).feedback == "too short"
    assert Score(1.0).feedback == ""


# Composites.


def test_composite_is_the_weighted_mean_and_says_which_part_lost() -> None:
    both = load_metric({"exact_match": 3, "token_f1": 1})
    score = both(example("cat"), says("a cat sat"))
    assert score == pytest.approx(0.25 * 2 / 3)
    assert "exact_match (weight 0.75) 0.00: expected 'cat'; got 'a cat sat'" in score.feedback
    assert "token_f1 (weight 0.25) 0.67: expected 'cat'" in score.feedback
    assert both(example("cat"), says("Cat")) == 1
    assert both.name == "0.75 exact_match + 0.25 token_f1"
    assert load_metric({"token_f1": 5}).name == "token_f1"


def test_part_that_fails_fails_the_whole_before_a_judge_is_asked(
    judge_lm: dspy.LM, server: OpenAIServer, own: str
) -> None:
    both = load_metric({"groundedness": 0.3, "token_f1": 0.7}, judge_lm)
    assert (both.judge_calls, both.needs) == (1, {"answers", "context", "judge"})
    assert both(example("cat"), says("cat", "A dog.")) == pytest.approx(0.7)
    with pytest.raises(RagwrightError, match="has no 'passages'"):
        both(example("cat"), dspy.Prediction(answer="cat"))
    server.requests.clear()
    with pytest.raises(ValueError, match="broken"):
        load_metric({"groundedness": 0.3, f"{own}:breaks": 0.7}, judge_lm)(example("cat"), says("cat", "A dog."))
    assert not server.requests


@pytest.mark.parametrize("weight", [0, -1, True, "1", float("inf"), float("nan")])
def test_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(RagwrightError, match=r"the weight of 'token_f1' is .*; it has to be a number above 0"):
        load_metric({"exact_match": 1.0, "token_f1": weight})
    with pytest.raises(RagwrightError, match="names no metric"):
        load_metric({})


# Names, and a person's own.


def test_metric_is_found_by_name() -> None:
    assert load_metric("token_f1") is token_f1
    with pytest.raises(
        RagwrightError, match=r"metric: 'f1' is neither one of exact_match, token_f1, .* nor module:score"
    ):
        load_metric("f1")
    with pytest.raises(RagwrightError, match="groundedness is graded by an LM, and none is named; name one, such as"):
        load_metric({"token_f1": 1, "groundedness": 1})


OWN = """
import dspy

def length(example, prediction):
    return len(prediction.answer) / 10

def dspys(example, prediction, trace=None):
    return dspy.Prediction(score=len(prediction.answer) / 10, feedback="write ten letters")

def word(example, prediction):
    return "0.5"

def nothing_said(example, prediction):
    return None

def right(example, prediction):
    return True

def asks(example, prediction, judge):
    return judge("Is it so?") == ["so"]

asks.needs = {"context"}

def wants(example, prediction):
    return 1.0

wants.needs = {"money"}

def breaks(example, prediction):
    raise ValueError("broken")

constant = 5
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_metrics_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_own_metric_is_imported_and_its_scores_are_checked(own: str) -> None:
    score = load_metric(f"{own}:length")
    assert score(example("cat"), says("12345")) == 0.5
    assert score(example("cat"), says("12345")).feedback == f"{own}:length is 0.50: expected 'cat'; got '12345'"
    for name, text, value in (("length", "12345678901", "1.1"), ("word", "", "'0.5'"), ("nothing_said", "", "None")):
        with pytest.raises(RagwrightError, match=rf"returned {value} for 'q1'; scores lie in \[0, 1\]"):
            load_metric(f"{own}:{name}")(example(), says(text))
    with pytest.raises(RagwrightError, match="is not callable"):
        load_metric(f"{own}:constant")
    with pytest.raises(RagwrightError, match="has no 'nothing'"):
        load_metric(f"{own}:nothing")
    with pytest.raises(RagwrightError, match="needs 'money'; choices: answers, context, evidence, judge"):
        load_metric(f"{own}:wants")


def test_own_metric_may_return_what_dspy_metrics_do(own: str) -> None:
    score = load_metric(f"{own}:dspys")(example("cat"), says("12345"))
    assert (score, score.feedback) == (0.5, "write ten letters")
    assert load_metric(f"{own}:right")(example("cat"), says("dog")) == 1


def test_own_metric_may_ask_the_judge(own: str) -> None:
    with pytest.raises(RagwrightError, match="is graded by an LM, and none is named"):
        load_metric(f"{own}:asks")
    with OpenAIServer(answer=lambda body: "so") as so:
        lm = open_lm(parse_lm({"model": "openai/judge", "api_base": so.url}))
        metric = load_metric(f"{own}:asks", lm)
        assert metric(example("cat"), says("cat")) == 1
    assert (metric.needs, metric.judge_calls) == ({"context", "judge"}, 1)


def test_identity_tells_versions_of_metrics_apart(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric_identity("token_f1") == metric_identity({"token_f1": 2}) == [["token_f1", 1.0, ""]]
    assert metric_identity({"token_f1": 1, "chrf": 3}) != metric_identity({"token_f1": 1, "chrf": 1})
    [[_, _, judged]] = metric_identity("groundedness")
    assert judged.startswith("mlflow 3.")
    [[_, _, source]] = metric_identity(f"{own}:length")
    assert "len(prediction.answer) / 10" in source
    [[_, _, embedder]] = metric_identity("embedding_similarity:wordllama@64")
    assert embedder.endswith("@64")
    assert json.loads(json.dumps(metric_identity("groundedness"))) == metric_identity("groundedness")


# Found before anything runs.


@pytest.fixture
def unknown(villages: Path, tmp_path: Path) -> Path:
    import shutil

    folder = tmp_path / "unknown"
    shutil.copytree(villages, folder)
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines[:2]:
        line["answers"] = None
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_everything_that_is_missing_is_found_at_once(unknown: Path, own: str) -> None:
    dataset = load_dataset(unknown)
    spec = {"f1": 1.0, "token_f1": 1.0, "groundedness": 1.0, f"{own}:constant": 1.0}
    found = check_metrics(spec, dataset, judge_named=False, place=lambda name: f"study.yaml:7: metric.{name}")
    assert [str(problem).partition(" (")[0] for problem in found] == [
        f"study.yaml:7: metric.f1: 'f1' is neither one of {', '.join(METRICS)} nor module:score",
        "study.yaml:7: metric.token_f1: token_f1 needs known answers, and 2 questions of unknown have none",
        "study.yaml:7: metric.groundedness: groundedness is graded by an LM, and none is named",
        f"study.yaml:7: metric.{own}:constant: '{own}:constant' is not callable; "
        "it must be score(example, prediction) -> float",
    ]
    assert found[2].mend == "name one, such as judge_lm: openai/gpt-4o-mini"
    assert "groundedness" in found[1].mend


def test_nothing_is_found_where_all_is_there(villages: Path, unknown: Path) -> None:
    every = dict.fromkeys(METRICS, 1.0)
    assert check_metrics(every, load_dataset(villages), judge_named=True) == []
    assert check_metrics({"groundedness": 1, "safety": 1}, load_dataset(unknown), judge_named=True) == []
    assert check_metrics("semantic_f1", None, judge_named=True) == []


def test_bad_weights_and_embedders_are_problems_too() -> None:
    [problem] = check_metrics({"token_f1": 0}, None, judge_named=False)
    assert "the weight of 'token_f1' is 0" in str(problem)
    [problem] = check_metrics("embedding_similarity:nosuch", None, judge_named=False)
    assert "nosuch" in str(problem)


def test_passages_of_an_own_program_are_a_matter_of_trust() -> None:
    [note] = metric_notes({"groundedness": 1, "token_f1": 1}, "mine:build")
    assert note.startswith("groundedness reads the passages: mine:build's predictions must have 'passages'")
    assert metric_notes({"groundedness": 1}, "rag") == metric_notes("token_f1", "mine:build") == []


# SQuAD's two.


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


words = st.lists(st.sampled_from(["cat", "dog", "The", "sat", "on,"]), max_size=6).map(" ".join)


@given(words, words)
def test_f1_is_the_harmonic_mean_of_the_overlap(answer: str, gold: str) -> None:
    said, right = normalize(answer).split(), normalize(gold).split()
    common = sum(min(said.count(word), right.count(word)) for word in set(said))
    expected = 2 * common / (len(said) + len(right)) if said and right else float(said == right)
    assert token_f1(example(gold), says(answer)) == pytest.approx(expected)
    assert exact_match(example(gold), says(answer)) == (said == right)


def test_feedback_names_the_words_apart_from_the_closest_answer() -> None:
    score = token_f1(example("London", "Paris in France"), says("the city of Paris"))
    assert score.feedback == (
        "expected one of 'London', 'Paris in France'; got 'the city of Paris'; it lacks 'in france', it adds 'city of'"
    )
    long = token_f1(example("x " * 400), says("y"))
    assert len(long.feedback) < 400


# The page about them.

PAGE = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_page_has_every_metric_with_what_it_needs() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([a-z, ]+) \| (\d) \|$", PAGE, re.MULTILINE)
    assert [(name, set(needs.split(", ")), int(calls)) for name, needs, calls in rows] == [
        (name, set(metric.needs), judge_calls(name)) for name, metric in METRICS.items()
    ]


def test_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short, polite, python = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for name, code in (("short_of_the_page", short), ("polite_of_the_page", polite)):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert load_metric("short_of_the_page:short")(example("cat"), says("a b c d e f g h i j")) == 0.5
    with OpenAIServer(answer=lambda body: "No") as server:
        lm = open_lm(parse_lm({"model": "openai/judge", "api_base": server.url}))
        metric = load_metric("polite_of_the_page:polite", lm)
        score = metric(example("cat"), says("cat"))
    assert (score, score.feedback, metric.needs, metric.judge_calls) == (0, "be polite", {"judge"}, 1)
    exec(python, {})
    assert "token_f1 (weight 0.5) 0.67: expected one of 'Paris'" in capsys.readouterr().out
