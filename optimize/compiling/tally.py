"""Counts what an optimizer does, since DSPy's optimizers swallow errors and go on: a dead server looks like zeros.

DSPy's worker threads do not see the collectors of `programs.metering.collect_calls`, which live in a context variable
that those threads do not inherit. So the count stands where every call must pass: an engine around the LM's engine.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optimize.data.example import Example
from optimize.evaluation.evaluate import FAILURE_LIMIT
from optimize.metrics.metric import Metric, Score
from programs.errors import BudgetExhaustedError, EndpointError, RagwrightError
from programs.metering import CallRecord, Role, collect_calls

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import Request, Response


class CompileFailedError(RagwrightError):
    """An optimizer has no result, or none that can be trusted. A study can go on without it.

    Attributes:
        calls: LM calls that it took.
    """

    def __init__(self, message: str, calls: int) -> None:
        super().__init__(message)
        self.calls = calls


class Tally:
    """What one optimizer did. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._paid: Counter[str] = Counter()
        self._engines: list[Any] = []
        self._scored = self._unscored = self._understood = 0
        self._first_error = self._first_unscored = ""
        self._end: RagwrightError | None = None

    @property
    def calls(self) -> dict[str, int]:
        """LM calls by role, failed and cached ones included."""
        return dict(self._asked)

    @property
    def total(self) -> int:
        """LM calls of all roles."""
        return self._asked.total()

    @property
    def paid(self) -> dict[str, int]:
        """LM calls by role that were really sent."""
        return dict(self._paid)

    def watch(self, lm: dspy.LM, role: Role) -> dspy.LM:
        """A copy of an LM whose calls, and those of its copies, are counted here under `role`."""
        self._engines.append(lm.engine)
        return lm.copy(engine=TalliedEngine(lm.engine, self, role))

    def scoring(self, metric: Metric) -> Metric:
        """The metric, its scores and its failures counted here."""

        def grade(example: Example, prediction: dspy.Prediction) -> Score:
            self.refuse()
            try:
                found = metric(example, prediction)
            except (BudgetExhaustedError, EndpointError) as error:
                self.end(error)
                raise
            except Exception as error:
                with self._lock:
                    self._unscored += 1
                    self._first_unscored = self._first_unscored or _line(error)
                raise
            with self._lock:
                self._scored += 1
            return found

        return replace(metric, grade=grade)

    def refuse(self) -> None:
        """Fail at once where an earlier call has found that going on is useless.

        Raises:
            RagwrightError: The first such error.
        """
        if self._end is not None:
            # Many threads raise it, and each would add to its traceback.
            raise self._end.with_traceback(None)

    def end(self, error: RagwrightError) -> None:
        """Remember the first error after which going on is useless."""
        with self._lock:
            self._end = self._end or error

    def answered(self, role: Role, records: list[CallRecord], error: Exception | None) -> None:
        """Count one call."""
        with self._lock:
            self._asked[role] += 1
            self._paid[role] += sum(record.paid for record in records)
            if error is not None:
                self._failed[role] += 1
                self._first_error = self._first_error or _line(error)

    def understood(self) -> None:
        """Count one answer of the reflection LM that could be read."""
        with self._lock:
            self._understood += 1

    def confirm(self) -> None:
        """Make sure that the calls that failed did so by themselves.

        Raises:
            BudgetExhaustedError: The budget has ended.
            EndpointError: The LM refuses every call, or is dead.
        """
        self.refuse()
        for engine in self._engines if self._failed else ():
            engine.confirm()

    def problem(self, *, scores: bool) -> str | None:
        """Why the result is not to be trusted, or None.

        Args:
            scores: Whether the optimizer chooses by scores.
        """
        failed, asked = self._failed.total(), self._asked.total()
        if failed > FAILURE_LIMIT * asked:
            return f"{failed} of {asked} calls failed, the first with {self._first_error}"
        answers = self._scored + self._unscored
        if self._unscored > FAILURE_LIMIT * answers:
            return f"{self._unscored} of {answers} answers could not be scored, the first with {self._first_unscored}"
        if scores and not self._scored:
            return "nothing was scored"
        return None

    @property
    def silence(self) -> str | None:
        """Why there may be no candidates, or None."""
        if self._asked["reflection"] > self._failed["reflection"] and not self._understood:
            return "nothing that the reflection LM wrote can be read; name a stronger one as reflection_lm"
        return None

    def blame(self, error: Exception) -> str:
        """An error that an optimizer ended with, and the errors of the LM that may have led to it."""
        failed = self._failed.total()
        lm = f" after {failed} of {self.total} calls failed, the first with {self._first_error}" if failed else ""
        return f"{_line(error)}{lm}"


class TalliedEngine:
    """A DSPy engine around a `MeteredEngine`.

    Args:
        inner: The engine that answers.
        tally: Where calls are counted.
        role: As what.
    """

    def __init__(self, inner: Any, tally: Tally, role: Role) -> None:
        self._inner, self._tally, self.role = inner, tally, role

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> TalliedEngine:
        return self

    def complete(self, request: Request) -> Response:
        """Answer a request, unless an earlier call has found that going on is useless.

        Raises:
            BudgetExhaustedError: The budget is used up, now or at an earlier call.
            EndpointError: The endpoint refuses every call, now or at an earlier call.
        """
        self._tally.refuse()
        failed: Exception | None = None
        with collect_calls() as records:
            try:
                response: Response = self._inner.complete(request)
                return response
            except (BudgetExhaustedError, EndpointError) as error:
                self._tally.end(error)
                failed = error
                raise
            except Exception as error:
                failed = error
                raise
            finally:
                # A call that the budget refused was not made.
                if not isinstance(failed, BudgetExhaustedError):
                    self._tally.answered(self.role, list(records), failed)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
