from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from optimize.compiling.table import predicted_calls
from optimize.inference.statistics import detectable_effect
from optimize.studies.check import Checked, check_study
from optimize.studies.plan import ICC, SPREAD, describe_study, plan_study
from programs.lm import parse_lm
from tests.villages import write_study


@pytest.fixture
def checked(villages: Path, tmp_path: Path) -> Checked:
    return check_study(write_study(tmp_path / "study.yaml", villages, "http://127.0.0.1:9/v1"))


def of_test(checked: Checked, groups: dict[str, str], **changes: object) -> dict[str, str]:
    """The plan, with other groups and other settings."""
    study = checked.study.model_copy(update=changes)
    return plan_study(replace(checked, study=study, allocation=replace(checked.allocation, groups=groups)))


def numbers(line: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", line)]


def test_the_smallest_effect_is_that_of_the_groups_in_the_test(checked: Checked) -> None:
    test = checked.allocation.test
    pairs = {example.id: f"pair {place // 2}" for place, example in enumerate(test)}
    plan = of_test(checked, pairs)
    expected = detectable_effect([2] * (len(test) // 2), SPREAD, ICC)
    assert plan["smallest effect shown"].startswith(f"about {expected:.2f} in token_f1 (80 % power")
    assert plan["test"].endswith(f"{len(test)} questions from {len(test) // 2} groups")


def test_the_questions_needed_would_show_the_effect_that_matters(checked: Checked) -> None:
    pairs = {example.id: f"pair {place // 2}" for place, example in enumerate(checked.allocation.test)}
    questions, groups, effect = numbers(of_test(checked, pairs)["questions needed"])
    assert effect == checked.study.smallest_effect
    shown = detectable_effect([2] * round(questions / 2), SPREAD, ICC)
    assert 0.9 * effect <= shown <= effect and groups == pytest.approx(questions / 2, rel=0.1)
    assert of_test(checked, pairs, smallest_effect=0.9)["questions needed"] == "no more to show 0.9 (smallest_effect)"


def test_questions_of_one_document_show_nothing(checked: Checked) -> None:
    one = {example.id: "one" for example in checked.allocation.test}
    assert of_test(checked, one)["smallest effect shown"] == "none: all test questions are of one group"
    assert "groups" in of_test(checked, one)["questions needed"]


def test_a_weighted_metric_is_named(checked: Checked) -> None:
    weighted = checked.study.model_copy(update={"metric": {"token_f1": 0.5, "exact_match": 0.5}})
    named = replace(checked, study=weighted)
    assert "0.5 token_f1 + 0.5 exact_match" in plan_study(named)["smallest effect shown"]
    assert "metric 0.5 token_f1 + 0.5 exact_match" in describe_study(named)["study"]


def test_each_optimizer_has_its_price(checked: Checked) -> None:
    study = checked.study.model_copy(update={"optimizers": {"labeled_fewshot": {}, "copro": {}}})
    plan = plan_study(replace(checked, study=study))
    most = predicted_calls("copro", {}, 1, len(checked.allocation.train))
    assert plan["  copro"] == f"at most {most:,} calls a turn, at most 2 turns"
    assert plan["  labeled_fewshot"].startswith("at most 0 calls")
    assert plan["search and compile"].endswith("4 questions a step")


def test_what_a_judge_is_asked_while_compiling_is_in_the_price(checked: Checked) -> None:
    changes = {"optimizers": ["copro"], "metric": "complete_and_grounded", "judge_lm": "openai/judge"}
    judged = replace(checked, study=checked.study.model_copy(update=changes))
    most = predicted_calls("copro", {}, 1, len(checked.allocation.train))
    # Two calls to judge each answer.
    assert plan_study(judged)["  copro"] == f"at most {3 * most:,} calls a turn, at most 2 turns"


def test_where_there_can_be_no_verdict_the_reason_is_said(checked: Checked) -> None:
    none = replace(checked, allocation=checked.allocation.without_verdict("5 LM calls carry no verdict"))
    plan = plan_study(none)
    assert plan["no verdict"] == "5 LM calls carry no verdict"
    assert not {"confirm", "test", "smallest effect shown"} & set(plan)
    assert describe_study(none)["no verdict"] == "5 LM calls carry no verdict"
    assert "no verdict" not in describe_study(checked)


def test_every_limit_is_said(checked: Checked) -> None:
    limits = checked.study.budget.model_copy(update={"usd": 2.5, "minutes": 30.0})
    plan = plan_study(replace(checked, study=checked.study.model_copy(update={"budget": limits})))
    assert plan["in all"] == "260 calls, 2.5 USD, 30 minutes at most"


def test_every_model_that_sees_text_is_named(checked: Checked) -> None:
    asked = parse_lm({"model": "openai/judge", "api_base": "http://127.0.0.1:8/v1"})
    changes = {"metric": {"token_f1": 0.5, "groundedness": 0.5}, "optimizers": {"copro": {}}}
    judged = replace(checked, study=checked.study.model_copy(update=changes), judge=asked, reflection=asked)
    sees = describe_study(judged)["sees text"]
    assert "127.0.0.1:9/v1 (openai/reader) (passages and questions)" in sees
    assert "(openai/judge) (training questions, their answers and passages, to write instructions: copro)" in sees
    assert "(openai/judge) (questions, answers and passages, to judge)" in sees
    assert "judge" not in describe_study(checked)["sees text"]


def test_what_a_metric_may_miss_is_noted(checked: Checked) -> None:
    own = checked.study.model_copy(update={"program": "mine:build", "guards": {"groundedness": 0.1}})
    lines = describe_study(replace(checked, study=own))
    assert "groundedness reads the passages: mine:build's predictions must have 'passages'" in lines["note"]
    assert lines["guards"] == "groundedness may fall by 0.1"
