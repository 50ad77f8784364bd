"""The gate in front of a model's endpoint: a wrong key, an unreachable or a dead server costs few requests, not all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from programs.errors import EndpointError

if TYPE_CHECKING:
    from dspy.utils.exceptions import LMError

T = TypeVar("T")

KEY_REFUSED, MODEL_UNKNOWN, UNPAID, UNREACHABLE, GONE = (
    "the key was refused",
    "the model is unknown there, or the address is wrong",
    "the account has no credit left",
    "the endpoint did not answer",
    "the endpoint no longer answers",
)
MENDS = {
    KEY_REFUSED: "put a valid key into {key}",
    MODEL_UNKNOWN: "check the model's name and api_base",
    UNPAID: "add credit, or name another model",
    UNREACHABLE: "check that the server runs and that api_base is right, then start again: what was done is kept",
    GONE: "look after its server, then start again: what was done is kept",
}

IN_A_ROW = 16
"""Failures in a row, the probes among them, after which an endpoint is taken for dead. A server that fails 30 % of
calls at random does that in 5,000 calls with a probability of 5,000 x 0.7 x 0.3^16 = 1.5e-5, and with 0.3^15 = 1.4e-8
each time that `confirm` asks after a failure; errors that take longer than 1.5 s each end the patience sooner."""

DOUBTED_AFTER = 8
"""Server errors (5xx) in a row after which probing begins: it costs calls, and at 30 % random failures 5,000 calls meet
that once in four studies. A call that gets no reply at all (refused, reset, no name, too late) is probed at once."""

PAUSE_S, PATIENCE_S = 0.5, 30.0
"""Between two probes; and how long probing lasts at most, counted in whole probes: where each waits for a time limit,
the first that nothing answers is enough."""


class Gate:
    """Lets calls through one at a time until the endpoint has answered once, then all at once.

    When an endpoint that used to answer seems dead, the gate closes again. What decides is a probe: the last call that
    was answered is sent once more, since a call that fails may be at fault itself. Where a probe is answered, the
    failures stay those of their calls; where none is, every call is refused. Rate limits (429) are no sign of death.

    Args:
        endpoint: Which endpoint, as people read it: model and address, never the key.
        key: Where its key comes from, as people read it.
        secrets: What must not appear in any message.
    """

    def __init__(self, endpoint: str, key: str, secrets: Iterable[str] = ()) -> None:
        self._endpoint, self._key = endpoint, key
        self._secrets = tuple(secret for secret in secrets if secret)
        self._one = threading.RLock()
        self._open = threading.Event()
        self._refusal: str | None = None
        self._count = threading.Lock()
        self._answered: Callable[[], Any] | None = None
        self._failures = 0
        # Calls are numbered as they begin. An answer says that the endpoint lived when its call began: a failure that
        # was noticed later is settled by it no more.
        self._begun, self._proof, self._doubt = 0, 0, 0

    @property
    def refusal(self) -> str | None:
        """Why every call is refused, or None."""
        return self._refusal

    @property
    def is_sure(self) -> bool:
        """Whether the endpoint has answered, and nothing since says that it would not now."""
        return self._refusal is None and self._open.is_set() and not self._failures

    def call(self, send: Callable[[], T]) -> T:
        """Send one call, or refuse it where the endpoint is known to refuse all.

        Args:
            send: Sends it; may be called again later, as a probe.

        Raises:
            EndpointError: The endpoint refuses every call; the message is the same for all of them.
            dspy.utils.exceptions.LMError: This one call failed; no secret is left in it, nor in a chained error.
        """
        self._check()
        if not self._open.is_set():
            with self._one:
                self._check()
                if not self._open.is_set():
                    return self._attempt(send)
        return self._attempt(send)

    def confirm(self) -> None:
        """Make sure that the latest failures are those of their calls: ask before they are kept as results.

        Nothing is sent where a call that began after the latest failure was answered.

        Raises:
            EndpointError: The endpoint is dead; they are not.
        """
        self._check()
        with self._count:
            doubted = self._doubt > self._proof
        if doubted and self._answered is not None:
            self._probe(self._answered, self._doubt)

    def clean(self, text: str) -> str:
        """The text without any secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _check(self) -> None:
        if self._refusal is not None:
            raise EndpointError(self._refusal)

    def _attempt(self, send: Callable[[], T]) -> T:
        from dspy.utils.exceptions import LMError

        try:
            return self._sent(send)
        except LMError as error:
            failed = error
        # Outside the handler, so that a new error is not chained to the provider's, whose text may hold the key.
        known = self._answered
        self._refuse_for(_last_reason(failed) if known else _first_reason(failed), failed)
        if _is_doubtful(failed) or (known is None and _is_rate_limit(failed)):
            with self._count:
                self._failures += 1
                failures, doubt = self._failures, self._begun + 1
                self._doubt = doubt
            if known is None:
                answer = self._probe(send, doubt)
                if answer is not None:
                    return answer
            elif _is_silence(failed) or failures >= DOUBTED_AFTER:
                self._probe(known, doubt)
        raise self._scrubbed(failed)

    def _sent(self, send: Callable[[], T]) -> T:
        with self._count:
            self._begun += 1
            number = self._begun
        response = send()
        with self._count:
            self._failures, self._answered = 0, send
            self._proof = max(self._proof, number)
            if self._proof >= self._doubt:
                self._open.set()
        return response

    def _probe(self, ask: Callable[[], T], doubt: int) -> T | None:
        """Close the gate and send `ask` until something is answered; the answer, where it is to `ask`.

        Args:
            ask: The call to send.
            doubt: The number of the first call that settles it, once answered.

        Raises:
            EndpointError: Nothing is.
        """
        from dspy.utils.exceptions import LMError

        with self._count:
            if self._proof < doubt:
                self._open.clear()
            # Of many calls that failed at once, each says little: their number never replaces the probes.
            left = max(IN_A_ROW - self._failures, DOUBTED_AFTER)
        answer: T | None = None
        with self._one:
            self._check()
            until = time.monotonic() + PATIENCE_S
            while self._proof < doubt:
                time.sleep(PAUSE_S)
                try:
                    answer = self._sent(ask)
                    break
                except LMError as error:
                    failed = error
                self._refuse_for(_last_reason(failed), failed)
                if not (_is_doubtful(failed) or (self._answered is None and _is_rate_limit(failed))):
                    break
                left -= 1
                if left <= 0 or time.monotonic() >= until:
                    self._refuse_for(GONE if self._answered else UNREACHABLE, failed)
            with self._count:
                self._failures, self._proof = 0, max(self._proof, doubt)
                self._open.set()
        return answer

    def _refuse_for(self, reason: str | None, error: LMError) -> None:
        if reason is None:
            return
        said = self.clean(error.message).strip().splitlines()
        detail = f" It says: {said[0][:300]}" if said else ""
        self._refusal = f"{self._endpoint}: {reason}; {MENDS[reason].format(key=self._key)}.{detail}"
        raise EndpointError(self._refusal)

    def _scrubbed(self, error: LMError) -> LMError:
        error.message = self.clean(error.message)
        error.args = tuple(self.clean(arg) if isinstance(arg, str) else arg for arg in error.args)
        error.__cause__ = error.__context__ = None
        return error


def _first_reason(error: LMError) -> str | None:
    """Why the endpoint is useless, seen before it has ever answered; None where only this call may be at fault."""
    from dspy.utils import exceptions

    if isinstance(error, exceptions.LMUnsupportedModelError) or error.status == 404:
        return MODEL_UNKNOWN
    if isinstance(error, exceptions.LMAuthError | exceptions.LMConfigurationError):
        return KEY_REFUSED
    return UNREACHABLE if _is_silence(error) else _last_reason(error)


def _last_reason(error: LMError) -> str | None:
    """Why an endpoint that used to answer is useless from now on; None where a later call may succeed."""
    from dspy.utils import exceptions

    if isinstance(error, exceptions.LMBillingError):
        return UNPAID
    # A 403 may be about this call's content; a 401 never is.
    return KEY_REFUSED if isinstance(error, exceptions.LMAuthError) and error.status != 403 else None


def _is_silence(error: LMError) -> bool:
    """Whether nothing came back; a 504 is a gateway's word for the server behind it."""
    from dspy.utils import exceptions

    late = isinstance(error, exceptions.LMTimeoutError) and error.status != 504
    return late or isinstance(error, exceptions.LMTransportError)


def _is_doubtful(error: LMError) -> bool:
    """Whether a dead server fails in this way: nothing came back, or a gateway or a broken server said so."""
    from dspy.utils import exceptions

    return _is_silence(error) or isinstance(error, exceptions.LMServerError) or error.status == 504


def _is_rate_limit(error: LMError) -> bool:
    from dspy.utils import exceptions

    return isinstance(error, exceptions.LMRateLimitError)
