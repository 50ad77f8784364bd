from __future__ import annotations

from pathlib import Path

import pytest

from optimize.budget import Budget, allocate
from optimize.dataset import load_dataset
from optimize.study_config import BudgetConfig, Limits, StudyConfig
from programs.errors import BudgetExhaustedError, RagwrightError
from programs.metering import CallRecord


def call(usd: float | None = None) -> CallRecord:
    return CallRecord("task", "key", 10, 2, 0, 0.1, usd, True, None)


def study(lm_calls: int, **limits: int) -> StudyConfig:
    return StudyConfig(name="x", dataset=".", budget=BudgetConfig(lm_calls=lm_calls), examples=Limits(**limits))


def test_the_verdict_and_some_trials_fit_into_every_budget(villages: Path) -> None:
    dataset = load_dataset(villages)
    for calls in (120, 200, 400, 1000):
        for calls_per_question in (1, 2):
            allocation = allocate(study(calls), dataset, calls_per_question)
            assert allocation.reserved_calls + 3 * allocation.trial_calls <= calls
            assert min(len(allocation.search), len(allocation.confirm), len(allocation.test)) >= 4


def test_more_budget_looks_at_more_questions_until_there_are_no_more(villages: Path) -> None:
    dataset = load_dataset(villages)
    sizes = [len(allocate(study(calls), dataset, 1).test) for calls in (120, 200, 100_000)]
    assert sizes[0] < sizes[1] < sizes[2] == len(dataset.test)


def test_too_small_a_budget_says_what_it_would_take(villages: Path) -> None:
    dataset = load_dataset(villages)
    with pytest.raises(RagwrightError, match=r"allow \d+ or more") as problem:
        allocate(study(100, search=12, confirm=8, test=40), dataset, 1)
    needed = int(str(problem.value).split("allow ")[1].split()[0])
    allocate(study(needed, search=12, confirm=8, test=40), dataset, 1)


def test_calls_are_refused_when_they_are_used_up() -> None:
    budget = Budget(lm_calls=3, usd=None, spent_calls=1, spent_usd=0.0)
    for _ in range(2):
        budget.admit()
        budget.record(call())
    with pytest.raises(BudgetExhaustedError, match="3 LM calls"):
        budget.admit()


def test_money_is_refused_when_it_is_used_up() -> None:
    budget = Budget(lm_calls=1000, usd=0.5, spent_calls=0, spent_usd=0.0)
    budget.record(call(usd=0.3))
    budget.admit()
    assert not budget.affords(1)
    budget.record(call(usd=0.3))
    with pytest.raises(BudgetExhaustedError, match=r"0\.5 USD"):
        budget.admit()


def test_what_is_reserved_is_not_afforded() -> None:
    budget = Budget(lm_calls=100, usd=None, spent_calls=0, spent_usd=0.0)
    budget.reserved = 60
    assert budget.affords(40) and not budget.affords(41)
