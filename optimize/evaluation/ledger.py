"""What was spent, role by role: nominal, so that an interrupted study counts as much as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from programs.metering import CallRecord


@dataclass(frozen=True, slots=True)
class Spending:
    """Calls of a language model and what they took. Sums and differences are again spendings.

    Attributes:
        calls: Calls, answered from the cache or not, failed ones included.
        paid_calls: Calls that were really sent.
        prompt_tokens: Tokens read, of cached answers those of their first time.
        completion_tokens: Tokens written, likewise.
        usd: Money, likewise; None where the price of some answer is not known.
    """

    calls: int = 0
    paid_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0

    @classmethod
    def of(cls, call: CallRecord) -> Self:
        """One call; a failed one has no tokens, and costs nothing as far as is known."""
        usd = 0.0 if call.error is not None else call.usd
        return cls(1, int(call.paid), call.prompt_tokens, call.completion_tokens, usd)

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Spending) -> Spending:
        return self._with(other, 1)

    def __sub__(self, other: Spending) -> Spending:
        return self._with(other, -1)

    def _with(self, other: Spending, sign: int) -> Spending:
        usd = None if self.usd is None or other.usd is None else self.usd + sign * other.usd
        return Spending(
            self.calls + sign * other.calls,
            self.paid_calls + sign * other.paid_calls,
            self.prompt_tokens + sign * other.prompt_tokens,
            self.completion_tokens + sign * other.completion_tokens,
            usd,
        )


NOTHING = Spending()


@dataclass(frozen=True, slots=True)
class Ledger:
    """The spending of each role: `task`, `reflection`, `judge`.

    The difference of a budget's ledgers before and after a piece of work is what that work took; kept beside its
    result, it is what a later process starts from.
    """

    by_role: Mapping[str, Spending] = field(default_factory=dict)

    @property
    def total(self) -> Spending:
        """All roles together."""
        return sum(self.by_role.values(), NOTHING)

    def role(self, name: str) -> Spending:
        """What one role spent."""
        return self.by_role.get(name, NOTHING)

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger({name: self.role(name) + other.role(name) for name in self._names(other)})

    def __sub__(self, other: Ledger) -> Ledger:
        return Ledger({name: self.role(name) - other.role(name) for name in self._names(other)})

    def _names(self, other: Ledger) -> dict[str, None]:
        return dict.fromkeys([*self.by_role, *other.by_role])

    def as_json(self) -> dict[str, Any]:
        """A JSON-serializable dictionary that `from_json` reads back."""
        return {name: asdict(spending) for name, spending in self.by_role.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Mapping[str, Any]]) -> Self:
        """Read a ledger back."""
        return cls({name: Spending(**spending) for name, spending in content.items()})
