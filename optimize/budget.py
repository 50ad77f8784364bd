"""One owner of the budget: what may be spent, what was spent, what is kept for the verdict."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.dataset import Dataset
from optimize.example import Example
from optimize.splits import balanced_order, group_examples, split_examples
from optimize.study_config import StudyConfig
from programs.errors import BudgetExhaustedError, RagwrightError

if TYPE_CHECKING:
    from programs.metering import CallRecord

TEST_SHARE, CONFIRM_SHARE, SEARCH_SHARE = 0.35, 0.2, 0.45
PLANNED_TRIALS = 14
"""Search evaluations that a study without further wishes is laid out for, the baseline's among them."""


@dataclass(frozen=True)
class Allocation:
    """Which examples each phase works on, in the order in which they are looked at.

    Attributes:
        train: Demos come from here.
        search: Every trial is scored on these.
        confirm: The finalists are scored on these.
        test: The verdict is about these.
        calls_per_question: LM calls that one answer takes.
        finalists: Configurations that reach the confirm phase, the baseline not counted.
        groups: Example id -> group of dependent questions.
    """

    train: tuple[Example, ...]
    search: tuple[Example, ...]
    confirm: tuple[Example, ...]
    test: tuple[Example, ...]
    calls_per_question: int
    finalists: int
    groups: dict[str, str]

    @property
    def confirm_calls(self) -> int:
        """Calls that the confirm phase takes."""
        return self.calls_per_question * len(self.confirm) * (self.finalists + 1)

    @property
    def test_calls(self) -> int:
        """Calls that the test takes: the winner and the baseline."""
        return self.calls_per_question * len(self.test) * 2

    @property
    def trial_calls(self) -> int:
        """Calls that one trial takes."""
        return self.calls_per_question * len(self.search)

    @property
    def reserved_calls(self) -> int:
        """Calls kept for the verdict."""
        return self.confirm_calls + self.test_calls

    def ids(self) -> dict[str, list[str]]:
        """Example ids by phase."""
        return {name: [e.id for e in getattr(self, name)] for name in ("train", "search", "confirm", "test")}


def allocate(study: StudyConfig, dataset: Dataset, calls_per_question: int) -> Allocation:
    """Lay out the budget: the verdict first, the search with what is left.

    Raises:
        RagwrightError: The budget does not carry the verdict and three evaluations.
    """
    documents = {document.id: document for document in dataset.corpus.documents}
    groups = group_examples(dataset.examples, documents)
    shares = {"search": 0.6, "confirm": 0.4}
    parts = split_examples(dataset.validation, documents, study.seed, shares, groups=groups)
    affordable = study.budget.lm_calls / calls_per_question

    def take(examples: Sequence[Example], wish: int | None, share: float, evaluations: int) -> tuple[Example, ...]:
        count = wish if wish is not None else max(4, int(share * affordable / evaluations))
        return tuple(balanced_order(examples, groups, study.seed)[:count])

    wishes, finalists = study.examples, study.finalists
    allocation = Allocation(
        train=tuple(balanced_order(dataset.train, groups, study.seed)[: wishes.train]),
        search=take(parts["search"], wishes.search, SEARCH_SHARE, PLANNED_TRIALS),
        confirm=take(parts["confirm"], wishes.confirm, CONFIRM_SHARE, finalists + 1),
        test=take(dataset.test, wishes.test, TEST_SHARE, 2),
        calls_per_question=calls_per_question,
        finalists=finalists,
        groups=groups,
    )
    needed = allocation.reserved_calls + 3 * allocation.trial_calls
    if needed > study.budget.lm_calls:
        raise RagwrightError(
            f"budget.lm_calls: {study.budget.lm_calls} calls are too few: the verdict takes "
            f"{allocation.reserved_calls} and each trial {allocation.trial_calls}; allow {needed} or more, "
            "or ask for fewer examples."
        )
    return allocation


class Budget:
    """Counts every call of a study and refuses those that it does not allow. Thread-safe.

    Args:
        lm_calls: Calls allowed in all, cached ones included: an interrupted study so ends as an uninterrupted one.
        usd: Money allowed, or None.
        spent_calls: Calls of the work that was finished earlier.
        spent_usd: Money of the work that was finished earlier.
    """

    def __init__(self, lm_calls: int, usd: float | None, spent_calls: int, spent_usd: float) -> None:
        self.lm_calls, self.usd = lm_calls, usd
        self.calls, self.money = spent_calls, spent_usd
        self.reserved = 0
        self._lock = threading.Lock()

    def record(self, call: CallRecord) -> None:
        """Count a call that was answered."""
        with self._lock:
            self.calls += 1
            self.money += call.usd or 0.0

    def admit(self) -> None:
        """Refuse a call that the budget does not allow.

        Raises:
            BudgetExhaustedError: It does not.
        """
        with self._lock:
            if self.calls >= self.lm_calls:
                raise BudgetExhaustedError(f"the budget of {self.lm_calls} LM calls is used up; raise budget.lm_calls.")
            if self.usd is not None and self.money >= self.usd:
                raise BudgetExhaustedError(f"the budget of {self.usd} USD is used up; raise budget.usd.")

    def affords(self, calls: int) -> bool:
        """Whether `calls` more leave what is reserved untouched, in calls and, at the mean price so far, in money."""
        if self.calls + calls + self.reserved > self.lm_calls:
            return False
        if self.usd is None or not self.calls:
            return True
        return self.money + (calls + self.reserved) * self.money / self.calls <= self.usd
