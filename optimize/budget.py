"""One owner of the budget: what may be spent, what was spent, what is kept for the verdict."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimize.dataset import Dataset
from optimize.example import Example
from optimize.ledger import NOTHING, Ledger, Spending
from optimize.splits import balanced_order, group_examples, split_examples
from optimize.study_config import StudyConfig
from programs.errors import BudgetExhaustedError, EndpointError

if TYPE_CHECKING:
    from programs.metering import CallRecord

TEST_SHARE, CONFIRM_SHARE, SEARCH_SHARE = 0.35, 0.2, 0.45
PLANNED_TRIALS = 8
"""Whole evaluations that a search is laid out for, the baseline's among them. Most points are asked a part of the
questions only, so more questions, and not more trials, are what a larger budget buys."""

LEAST_EVALUATIONS = 4
"""What has to fit beside a verdict, or there is nothing to give one on: the baseline and three trials."""

LEAST_EXAMPLES = 4
"""Fewest examples of a phase, where there are as many."""

LM_KEYS = {"task": "lm", "reflection": "reflection_lm", "judge": "judge_lm"}
"""Role -> the study file's key for its language model."""


@dataclass(frozen=True)
class Allocation:
    """Which examples each phase works on, in the order in which they are looked at.

    Attributes:
        train: Demos come from here.
        search: Every trial is scored on these.
        confirm: The finalists are scored on these; none where the budget carries no verdict.
        test: The verdict is about these; none where the budget carries none.
        calls_per_question: LM calls that one answer and its scoring take.
        finalists: Configurations that reach the confirm phase, the baseline not counted.
        groups: Example id -> group of dependent questions.
        why_not: Why there will be no verdict, or None.
    """

    train: tuple[Example, ...]
    search: tuple[Example, ...]
    confirm: tuple[Example, ...]
    test: tuple[Example, ...]
    calls_per_question: int
    finalists: int
    groups: dict[str, str]
    why_not: str | None = None

    @property
    def verdict_possible(self) -> bool:
        """Whether the budget carries a verdict, as far as is known."""
        return self.why_not is None

    @property
    def confirm_questions(self) -> int:
        """Answers that the confirm phase takes."""
        return len(self.confirm) * (self.finalists + 1)

    @property
    def test_questions(self) -> int:
        """Answers that the test takes: the winner's and the baseline's."""
        return len(self.test) * 2

    @property
    def confirm_calls(self) -> int:
        """Calls that the confirm phase takes."""
        return self.calls_per_question * self.confirm_questions

    @property
    def test_calls(self) -> int:
        """Calls that the test takes."""
        return self.calls_per_question * self.test_questions

    @property
    def trial_calls(self) -> int:
        """Calls that one trial takes."""
        return self.calls_per_question * len(self.search)

    @property
    def reserved_calls(self) -> int:
        """Calls kept for the verdict."""
        return self.confirm_calls + self.test_calls

    def without_verdict(self, reason: str) -> Allocation:
        """The same search, and nothing kept for a verdict."""
        return replace(self, confirm=(), test=(), why_not=reason)

    def ids(self) -> dict[str, list[str]]:
        """Example ids by phase."""
        return {name: [e.id for e in getattr(self, name)] for name in ("train", "search", "confirm", "test")}


def allocate(
    study: StudyConfig,
    dataset: Dataset,
    calls_per_question: int,
    kept: Mapping[str, Sequence[str]] | None = None,
) -> Allocation:
    """Lay out the calls: the verdict first, the search with what is left; where that is too little, a search alone.

    Args:
        study: The study file.
        dataset: The data.
        calls_per_question: LM calls that one answer and its scoring take.
        kept: `Allocation.ids` of the study's first process. They hold for all later ones, whatever their budget; a
            verdict that the first one could not afford is laid out now, on examples that no search has seen.
    """
    documents = {document.id: document for document in dataset.corpus.documents}
    groups = group_examples(dataset.examples, documents)
    parts = split_examples(dataset.validation, documents, study.seed, {"search": 0.6, "confirm": 0.4}, groups=groups)
    pools = {"train": dataset.train, "search": parts["search"], "confirm": parts["confirm"], "test": dataset.test}
    order = {name: balanced_order(pool, groups, study.seed) for name, pool in pools.items()}
    by_id = {example.id: example for example in dataset.examples}
    wishes, others = study.examples, study.finalists + 1
    affordable = study.budget.lm_calls // calls_per_question

    def first(name: str, count: int) -> tuple[Example, ...]:
        return tuple(by_id[i] for i in kept[name]) if kept and kept[name] else tuple(order[name][:count])

    def size(wish: int | None, share: float, most: int = sys.maxsize) -> int:
        return wish if wish is not None else max(LEAST_EXAMPLES, min(int(share * affordable), most))

    train = order["train"][: wishes.train] if kept is None else [by_id[i] for i in kept["train"]]
    search = first("search", size(wishes.search, SEARCH_SHARE / PLANNED_TRIALS))
    confirm = first("confirm", size(wishes.confirm, CONFIRM_SHARE / others))
    left = affordable - LEAST_EVALUATIONS * len(search) - others * len(confirm)
    test = first("test", size(wishes.test, TEST_SHARE / 2, left // 2))
    laid_out = Allocation(tuple(train), search, confirm, test, calls_per_question, study.finalists, groups)
    needed = laid_out.reserved_calls + LEAST_EVALUATIONS * laid_out.trial_calls
    if needed <= study.budget.lm_calls:
        return laid_out
    # A wish that leaves no room for a single trial beside the baseline would end with nothing at all.
    room = max(LEAST_EXAMPLES, affordable // 2)
    alone = first("search", min(size(wishes.search, 1.0 / PLANNED_TRIALS), room))
    reason = (
        f"{study.budget.lm_calls} LM calls carry no verdict: it takes {needed - study.budget.lm_calls} more "
        f"(budget.lm_calls: {needed}), or fewer examples"
    )
    return replace(laid_out, search=alone).without_verdict(reason)


class UncountableError(EndpointError):
    """An endpoint does not say what a limit of the budget counts."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a budget and how much of it is used.

    Attributes:
        key: The study file's key.
        used: What was spent of it.
        allowed: What may be.
    """

    key: str
    used: float
    allowed: float

    @property
    def share(self) -> float:
        """Used share, from 0."""
        return self.used / self.allowed

    @property
    def left(self) -> float:
        """What may still be spent."""
        return max(0.0, self.allowed - self.used)

    def amount(self, number: float) -> str:
        """An amount of this limit, as people read it."""
        return f"{number:.4g} USD" if self.key == "usd" else f"{round(number):,} {UNITS[self.key]}"

    def __str__(self) -> str:
        used = f"{self.used:.4g}" if self.key == "usd" else f"{round(self.used):,}"
        return f"{used}/{self.amount(self.allowed)}"


UNITS = {"lm_calls": "LM calls", "tokens": "tokens", "usd": "USD"}


class Budget:
    """Counts every call of a study, whatever its role, and refuses those that it does not allow. Thread-safe.

    Args:
        lm_calls: Calls allowed in all, cached ones included: an interrupted study so ends as an uninterrupted one.
        tokens: Tokens allowed, read and written, or None.
        usd: Money allowed, or None.
        spent: What the work took that was finished earlier.
    """

    def __init__(
        self, lm_calls: int, tokens: int | None = None, usd: float | None = None, spent: Ledger | None = None
    ) -> None:
        self.lm_calls, self.tokens, self.usd = lm_calls, tokens, usd
        self.reserved = 0
        self._spent = dict((spent or Ledger()).by_role)
        self._under_way = 0
        self._uncountable: str | None = None
        self._lock = threading.Lock()

    @property
    def ledger(self) -> Ledger:
        """What was spent so far; it does not change any more."""
        with self._lock:
            return Ledger(dict(self._spent))

    @property
    def spent_by_role(self) -> dict[str, Spending]:
        """Role -> what it spent so far."""
        return dict(self.ledger.by_role)

    @property
    def calls(self) -> int:
        """Calls so far, of all roles."""
        return self.ledger.total.calls

    def record(self, call: CallRecord) -> None:
        """Count a call that was answered, sent or from the cache, or that failed."""
        with self._lock:
            self._under_way = max(0, self._under_way - call.paid)
            self._spent[call.role] = self._spent.get(call.role, NOTHING) + Spending.of(call)
            if call.error is None:
                self._uncountable = self._uncountable or self._unsaid(call)

    def check(self) -> None:
        """Say whether the budget is used up.

        Raises:
            BudgetExhaustedError: It is.
            UncountableError: It cannot be known, since an endpoint does not say what is counted.
        """
        with self._lock:
            self._check(Ledger(self._spent).total)

    def admit(self) -> None:
        """Let a call pass, or refuse it. Each call that passes has to be recorded.

        Raises:
            BudgetExhaustedError: The budget does not allow it.
            UncountableError: An endpoint does not say what is counted.
        """
        with self._lock:
            total = Ledger(self._spent).total
            # Calls under way will count, each by the mean so far: without them many threads would spend too much.
            under_way = self._under_way / max(1, total.calls)
            self._check(
                Spending(
                    total.calls + self._under_way,
                    prompt_tokens=round(total.tokens * (1 + under_way)),
                    usd=(total.usd or 0.0) * (1 + under_way),
                )
            )
            self._under_way += 1

    def limits(self) -> list[Limit]:
        """The limits that are set, the scarcest first."""
        return sorted(self._limits(self.ledger.total), key=lambda limit: -limit.share)

    def affords(self, calls: int, tokens: int = 0) -> bool:
        """Whether `calls` more leave what is reserved untouched, in calls, tokens and money.

        Args:
            calls: LM calls.
            tokens: Tokens that they take, where something better than the mean so far is known.
        """
        return self._lack(calls, tokens, self.reserved) is None

    def shortfall(self, calls: int) -> str | None:
        """What `calls` more take and what is left, where that is too little; what is reserved counts as left."""
        return self._lack(calls, 0, 0)

    def _lack(self, calls: int, tokens: int, reserved: int) -> str | None:
        ledger = self.ledger
        # What an optimizer's reflection takes says nothing about answering and judging.
        usual = ledger.role("task") + ledger.role("judge")
        per_call = usual.tokens / max(1, usual.calls)
        per_token = (usual.usd or 0.0) / max(1, usual.tokens)
        in_all = (tokens or calls * per_call) + reserved * per_call
        wanted = {"lm_calls": calls + reserved, "tokens": in_all, "usd": in_all * per_token}
        for limit in self._limits(ledger.total):
            if wanted[limit.key] > limit.left:
                return f"about {limit.amount(wanted[limit.key])}, and {limit.amount(limit.left)} are left"
        return None

    def _limits(self, total: Spending) -> list[Limit]:
        found = [Limit("lm_calls", total.calls, self.lm_calls)]
        if self.tokens is not None:
            found.append(Limit("tokens", total.tokens, self.tokens))
        if self.usd is not None:
            found.append(Limit("usd", total.usd or 0.0, self.usd))
        return found

    def _check(self, total: Spending) -> None:
        if self._uncountable is not None:
            raise UncountableError(self._uncountable)
        for limit in self._limits(total):
            if limit.used >= limit.allowed:
                raise BudgetExhaustedError(
                    f"the budget of {limit.amount(limit.allowed)} is used up; raise budget.{limit.key}."
                )

    def _unsaid(self, call: CallRecord) -> str | None:
        lm = LM_KEYS[call.role]
        if self.usd is not None and call.usd is None:
            return (
                f"budget.usd: the price of {lm} is not known, so its money cannot be counted; "
                "set budget.lm_calls or budget.tokens instead."
            )
        if self.tokens is not None and not call.prompt_tokens + call.completion_tokens:
            return (
                f"budget.tokens: the endpoint of {lm} does not say how many tokens it read and wrote; "
                "set budget.lm_calls instead."
            )
        return None


def reserve_check(
    allocation: Allocation, budget: Budget, seconds_a_question: float = 0.0, seconds_left: float | None = None
) -> str | None:
    """Why the verdict cannot be afforded after all, seen when the baseline has shown what a call takes; else None.

    Args:
        allocation: What was laid out by the number of calls alone.
        budget: With the baseline's calls recorded.
        seconds_a_question: Wall-clock time that one answer takes, with as many threads as will be used.
        seconds_left: Wall-clock time that is left, None where it is not limited.
    """
    if not allocation.verdict_possible:
        return allocation.why_not
    lack = budget.shortfall(allocation.trial_calls + allocation.reserved_calls)
    if lack is None and seconds_left is not None:
        questions = len(allocation.search) + allocation.confirm_questions + allocation.test_questions
        seconds = questions * seconds_a_question
        if seconds > seconds_left:
            lack = f"about {seconds:,.0f} s, and {max(0.0, seconds_left):,.0f} s are left"
    return None if lack is None else f"one trial and the verdict take {lack}"
