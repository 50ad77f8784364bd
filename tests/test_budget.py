from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimize.data.dataset import Dataset, load_dataset
from optimize.evaluation.ledger import Ledger, Spending
from optimize.settings.study import BudgetConfig, Limits, StudyConfig
from optimize.studies.allocation import LEAST_EVALUATIONS, Allocation, allocate, reserve_check
from optimize.studies.budget import Budget, UncountableError
from programs.errors import BudgetExhaustedError
from programs.metering import CallRecord, Role


def call(usd: float | None = None, role: Role = "task", tokens: int = 10, **changes: Any) -> CallRecord:
    record = CallRecord(role, "key", tokens, 2 * bool(tokens), 0, 0.1, usd, True, None)
    return replace(record, **changes)


def study(lm_calls: int, finalists: int = 3, **limits: int) -> StudyConfig:
    budget, examples = BudgetConfig(lm_calls=lm_calls), Limits(**limits)
    return StudyConfig(name="x", dataset=".", budget=budget, examples=examples, finalists=finalists)


@pytest.fixture(scope="module")
def dataset(villages: Path) -> Dataset:
    return load_dataset(villages)


# What each phase works on


@pytest.mark.parametrize("calls_per_question", [1, 2, 5])
@pytest.mark.parametrize("finalists", [1, 3, 10])
def test_from_the_least_budget_on_the_verdict_and_some_trials_fit(
    dataset: Dataset, calls_per_question: int, finalists: int
) -> None:
    carried = []
    for calls in range(10, 130 * calls_per_question, 3):
        allocation = allocate(study(calls, finalists), dataset, calls_per_question)
        if allocation.verdict_possible:
            assert allocation.reserved_calls + LEAST_EVALUATIONS * allocation.trial_calls <= calls
            assert min(len(allocation.search), len(allocation.confirm), len(allocation.test)) >= 4
        carried.append(allocation.verdict_possible)
    assert carried == sorted(carried)
    assert not carried[0] and carried[-1]


def test_more_budget_looks_at_more_questions_until_there_are_no_more(dataset: Dataset) -> None:
    sizes = [len(allocate(study(calls), dataset, 1).test) for calls in (120, 200, 100_000)]
    assert sizes[0] < sizes[1] < sizes[2] == len(dataset.test)


@pytest.mark.parametrize("limits", [{}, {"search": 12, "confirm": 8, "test": 24}])
@pytest.mark.parametrize("calls", [1, 10, 30])
def test_too_small_a_budget_searches_alone_and_says_what_a_verdict_takes(
    dataset: Dataset, calls: int, limits: dict[str, int]
) -> None:
    allocation = allocate(study(calls, **limits), dataset, 1)
    assert not allocation.verdict_possible
    assert (allocation.confirm, allocation.test, allocation.reserved_calls) == ((), (), 0)
    assert 4 <= len(allocation.search) <= max(4, calls // 2)
    assert f"{calls} LM calls carry no verdict" in str(allocation.why_not)
    needed = int(str(allocation.why_not).split("budget.lm_calls: ")[1].split(")")[0])
    assert f"it takes {needed - calls} more" in str(allocation.why_not)
    assert allocate(study(needed, **limits), dataset, 1).verdict_possible
    assert not allocate(study(needed - 1, **limits), dataset, 1).verdict_possible


def test_phases_share_no_group_whatever_the_budget(dataset: Dataset) -> None:
    for calls in (10, 60, 400):
        allocation = allocate(study(calls), dataset, 1)
        seen = [{allocation.groups[i] for i in ids} for ids in allocation.ids().values()]
        assert all(one.isdisjoint(other) for number, one in enumerate(seen) for other in seen[:number])


def test_what_was_laid_out_holds_whatever_the_later_budget(dataset: Dataset) -> None:
    first = allocate(study(200), dataset, 1)
    for calls in (150, 200, 1000):
        assert allocate(study(calls), dataset, 1, first.ids()).search == first.search
    assert allocate(study(1000), dataset, 1, first.ids()) == first
    assert not allocate(study(20), dataset, 1, first.ids()).verdict_possible


def test_a_verdict_that_was_too_dear_comes_with_more_budget_on_examples_not_seen(dataset: Dataset) -> None:
    first = allocate(study(10), dataset, 1)
    later = allocate(study(300), dataset, 1, first.ids())
    assert later.verdict_possible and later.search == first.search and later.train == first.train
    assert min(len(later.confirm), len(later.test)) >= 4
    searched = {first.groups[example.id] for example in first.search}
    assert searched.isdisjoint(later.groups[example.id] for example in (*later.confirm, *later.test))
    assert allocate(study(300), dataset, 1, later.ids()) == later


# What is spent and refused


def test_calls_are_refused_when_they_are_used_up() -> None:
    budget = Budget(lm_calls=3, spent=Ledger({"task": Spending(1, 1, 10, 2, None)}))
    for role in ("reflection", "judge"):
        budget.admit()
        budget.record(call(role=role))
    with pytest.raises(BudgetExhaustedError, match=r"3 LM calls is used up; raise budget\.lm_calls"):
        budget.admit()
    with pytest.raises(BudgetExhaustedError):
        budget.check()
    assert budget.calls == 3


def test_tokens_are_refused_when_they_are_used_up() -> None:
    budget = Budget(lm_calls=1000, tokens=24)
    for _ in range(2):
        budget.admit()
        budget.record(call())
    with pytest.raises(BudgetExhaustedError, match=r"24 tokens is used up; raise budget\.tokens"):
        budget.admit()


def test_money_is_refused_when_it_is_used_up() -> None:
    budget = Budget(lm_calls=1000, usd=0.5)
    budget.record(call(usd=0.3))
    budget.admit()
    assert not budget.affords(1)
    budget.record(call(usd=0.3))
    with pytest.raises(BudgetExhaustedError, match=r"0\.5 USD is used up; raise budget\.usd"):
        budget.admit()


def test_what_was_spent_before_counts() -> None:
    spent = Ledger({"task": Spending(2, 2, 100, 10, 0.4), "judge": Spending(1, 1, 50, 5, 0.2)})
    assert Budget(10, tokens=1000, usd=5.0, spent=spent).ledger == spent
    for budget in (Budget(3, spent=spent), Budget(10, tokens=165, spent=spent), Budget(10, usd=0.6, spent=spent)):
        with pytest.raises(BudgetExhaustedError):
            budget.admit()


@pytest.mark.parametrize(
    "limits", [{"lm_calls": 10}, {"lm_calls": 1000, "tokens": 120}, {"lm_calls": 1000, "usd": 1.25}]
)
def test_calls_under_way_count_so_that_threads_do_not_overspend(limits: dict[str, Any]) -> None:
    budget = Budget(**limits)
    budget.admit()
    budget.record(call(usd=0.125))
    passed, together = list[int](), threading.Barrier(32)

    def work(number: int) -> None:
        together.wait(timeout=10)
        try:
            budget.admit()
        except BudgetExhaustedError:
            return
        passed.append(number)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert len(passed) == 9
    for _ in range(9):
        budget.record(call(usd=0.125))
    with pytest.raises(BudgetExhaustedError):
        budget.admit()


def test_a_call_that_fails_makes_room_for_no_other() -> None:
    budget = Budget(lm_calls=2)
    for _ in range(2):
        budget.admit()
        budget.record(call(tokens=0, error="LMServerError: told to fail"))
    with pytest.raises(BudgetExhaustedError):
        budget.admit()


def test_kept_answers_count_and_end_no_call_under_way() -> None:
    budget = Budget(lm_calls=3)
    budget.admit()
    budget.record(call(paid=False))
    budget.admit()
    with pytest.raises(BudgetExhaustedError):
        budget.admit()


def test_an_unknown_price_with_a_limit_of_money_is_said_at_the_next_call() -> None:
    budget = Budget(lm_calls=1000, usd=1.0)
    budget.record(call(usd=None, error="LMServerError: told to fail"))
    budget.admit()
    budget.record(call(usd=None, role="judge"))
    with pytest.raises(UncountableError, match=r"budget\.usd: the price of judge_lm is not known.*budget\.tokens"):
        budget.admit()
    with pytest.raises(UncountableError):
        budget.check()
    free = Budget(lm_calls=1000)
    free.record(call(usd=None))
    free.admit()


def test_unknown_tokens_with_a_limit_of_tokens_are_said_at_the_next_call() -> None:
    budget = Budget(lm_calls=1000, tokens=1000)
    budget.record(call(tokens=0, error="LMServerError: told to fail"))
    budget.admit()
    budget.record(call(tokens=0))
    with pytest.raises(UncountableError, match=r"budget\.tokens: the endpoint of lm does not say"):
        budget.admit()


def test_each_role_has_its_own_account() -> None:
    budget = Budget(lm_calls=100)
    for role in ("task", "judge", "task"):
        budget.record(call(usd=0.5, role=role))
    budget.record(call(usd=0.5, role="reflection", paid=False))
    assert budget.spent_by_role == {
        "task": Spending(2, 2, 20, 4, 1.0),
        "judge": Spending(1, 1, 10, 2, 0.5),
        "reflection": Spending(1, 0, 10, 2, 0.5),
    }


def test_a_piece_of_work_is_the_difference_of_two_ledgers() -> None:
    budget = Budget(lm_calls=100, spent=Ledger({"task": Spending(7, 7, 70, 7, 0.7)}))
    before = budget.ledger
    budget.record(call(usd=0.5, role="judge"))
    assert (budget.ledger - before).total == Spending(1, 1, 10, 2, 0.5)
    assert before.total.calls == 7


# What is reserved


def test_what_is_reserved_is_not_afforded() -> None:
    budget = Budget(lm_calls=100)
    budget.reserved = 60
    assert budget.affords(40) and not budget.affords(41)


def test_what_is_reserved_is_kept_in_tokens_and_money_at_the_pace_so_far() -> None:
    for limits in ({"tokens": 1200}, {"usd": 1.0}):
        budget = Budget(lm_calls=1000, **limits)  # type: ignore[arg-type]
        for _ in range(10):
            budget.record(call(usd=0.01))
        budget.record(call(usd=0.0, role="reflection", tokens=0))
        budget.reserved = 60
        assert budget.affords(30) and not budget.affords(31)
        assert budget.affords(30, tokens=360) and not budget.affords(30, tokens=373)
        assert budget.affords(40, tokens=300)


def test_a_reflection_says_nothing_about_what_an_answer_takes() -> None:
    budget = Budget(lm_calls=1000, tokens=12_000)
    budget.record(call())
    budget.record(call(role="reflection", tokens=10_000))
    assert budget.affords(150) and not budget.affords(170)


def test_the_scarcest_limit_comes_first_and_is_readable() -> None:
    budget = Budget(lm_calls=100, tokens=24_000, usd=0.01)
    budget.record(call(usd=0.009, tokens=11_998))
    assert [str(limit) for limit in budget.limits()] == ["0.009/0.01 USD", "12,000/24,000 tokens", "1/100 LM calls"]
    assert [limit.share for limit in budget.limits()] == pytest.approx([0.9, 0.5, 0.01])


def laid_out(dataset: Dataset) -> Allocation:
    allocation = allocate(study(10_000, search=10, confirm=8, test=20, finalists=3), dataset, 1)
    assert allocation.reserved_calls == 8 * 4 + 20 * 2
    return allocation


def test_after_the_baseline_a_verdict_that_is_too_dear_is_given_up(dataset: Dataset) -> None:
    allocation = laid_out(dataset)
    wanted = (10 + allocation.reserved_calls) * 12
    for spare, said in (
        (0, None),
        (-1, f"one trial and the verdict take about {wanted:,} tokens, and {wanted - 1:,}"),
    ):
        budget = Budget(lm_calls=10_000, tokens=10 * 12 + wanted + spare)
        budget.reserved = allocation.reserved_calls
        for _ in range(10):
            budget.record(call())
        found = reserve_check(allocation, budget)
        assert (found is None) if said is None else (said in str(found))
        assert budget.reserved == allocation.reserved_calls


def test_after_the_baseline_money_and_time_may_be_short_too(dataset: Dataset) -> None:
    allocation = laid_out(dataset)
    budget = Budget(lm_calls=10_000, usd=0.01)
    for _ in range(10):
        budget.record(call(usd=0.0005))
    assert str(reserve_check(allocation, budget)).endswith("about 0.041 USD, and 0.005 USD are left")
    budget = Budget(lm_calls=10_000)
    assert reserve_check(allocation, budget, 0.5, 41.0) is None
    assert str(reserve_check(allocation, budget, 0.5, 30.0)).endswith("about 41 s, and 30 s are left")
    assert reserve_check(allocation, budget, 0.5) is None


def test_without_a_verdict_everything_goes_into_the_search(dataset: Dataset) -> None:
    allocation = laid_out(dataset).without_verdict("too dear")
    assert (allocation.verdict_possible, allocation.why_not, allocation.reserved_calls) == (False, "too dear", 0)
    assert len(allocation.search) == 10
    assert reserve_check(allocation, Budget(lm_calls=10)) == "too dear"
