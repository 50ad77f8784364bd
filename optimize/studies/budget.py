"""One owner of the budget: what may be spent, what was spent, what is kept for the verdict."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimize.evaluation.ledger import NOTHING, Ledger, Spending
from programs.errors import BudgetExhaustedError, EndpointError

if TYPE_CHECKING:
    from programs.metering import CallRecord

LM_KEYS = {"task": "lm", "reflection": "reflection_lm", "judge": "judge_lm"}
"""Role -> the study file's key for its language model."""


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
