from __future__ import annotations

import json
from typing import Any

from optimize.evaluation.ledger import NOTHING, Ledger, Spending
from programs.metering import CallRecord


def call(**changes: Any) -> CallRecord:
    given: dict[str, Any] = {
        "role": "task",
        "key": "k",
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cached_prompt_tokens": 4,
        "latency_s": 0.1,
        "usd": 0.25,
        "paid": True,
        "error": None,
    }
    return CallRecord(**{**given, **changes})


def test_a_call_becomes_a_spending() -> None:
    assert Spending.of(call()) == Spending(1, 1, 10, 2, 0.25)
    assert Spending.of(call(paid=False)) == Spending(1, 0, 10, 2, 0.25)
    assert Spending.of(call(usd=None)).usd is None


def test_a_failed_call_counts_and_costs_nothing_that_is_known() -> None:
    assert Spending.of(call(prompt_tokens=0, completion_tokens=0, usd=None, error="x")) == Spending(1, 1, 0, 0, 0.0)


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    assert (Spending(usd=1.0) + Spending(usd=None)).usd is None
    assert (Spending(usd=None) - Spending(usd=1.0)).usd is None
    assert (Spending(usd=1.0) - Spending(usd=0.25)).usd == 0.75


def test_ledgers_add_up_role_by_role() -> None:
    before = Ledger({"task": Spending(2, 1, 20, 4, 0.5)})
    after = before + Ledger({"task": Spending(1, 1, 5, 1, 0.25), "judge": Spending(3, 3, 30, 3, 0.0)})
    assert after.role("task") == Spending(3, 2, 25, 5, 0.75)
    assert after.total == Spending(6, 5, 55, 8, 0.75)
    assert (after - before).role("judge") == Spending(3, 3, 30, 3, 0.0)
    assert (after - before).role("reflection") == NOTHING == Ledger().total


def test_a_ledger_is_read_back() -> None:
    ledger = Ledger({"task": Spending(2, 1, 20, 4, None), "judge": Spending(1, 1, 3, 1, 0.5)})
    assert Ledger.from_json(json.loads(json.dumps(ledger.as_json()))) == ledger
