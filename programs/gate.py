"""The gate in front of a model's endpoint: a wrong key or an unreachable server costs one request, not hundreds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from programs.errors import EndpointError

if TYPE_CHECKING:
    from dspy.lm15 import Response
    from dspy.utils.exceptions import LMError

KEY_REFUSED, MODEL_UNKNOWN, UNPAID, UNREACHABLE = (
    "the key was refused",
    "the model is unknown there, or the address is wrong",
    "the account has no credit left",
    "the endpoint did not answer",
)
MENDS = {
    KEY_REFUSED: "put a valid key into {key}",
    MODEL_UNKNOWN: "check the model's name and api_base",
    UNPAID: "add credit, or name another model",
    UNREACHABLE: "check that the server runs and that api_base is right, then start again: what was done is kept",
}


class Gate:
    """Lets calls through one at a time until the endpoint has answered once, then all at once.

    Args:
        endpoint: Which endpoint, as people read it: model and address, never the key.
        key: Where its key comes from, as people read it.
        secrets: What must not appear in any message.
    """

    def __init__(self, endpoint: str, key: str, secrets: Iterable[str] = ()) -> None:
        self._endpoint, self._key = endpoint, key
        self._secrets = tuple(secret for secret in secrets if secret)
        self._first = threading.Lock()
        self._answered = threading.Event()
        self._refusal: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why every call is refused, or None."""
        return self._refusal

    def call(self, send: Callable[[], Response]) -> Response:
        """Send one call, or refuse it where the endpoint is known to refuse all.

        Raises:
            EndpointError: The endpoint refuses every call; the message is the same for all of them.
            dspy.utils.exceptions.LMError: This one call failed; no secret is left in it, nor in a chained error.
        """
        self._check()
        if self._answered.is_set():
            return self._attempt(send)
        with self._first:
            self._check()
            if not self._answered.is_set():
                response = self._attempt(send)
                self._answered.set()
                return response
        return self._attempt(send)

    def _check(self) -> None:
        if self._refusal is not None:
            raise EndpointError(self._refusal)

    def _attempt(self, send: Callable[[], Response]) -> Response:
        from dspy.utils.exceptions import LMError

        try:
            return send()
        except LMError as error:
            failed = error
        # Outside the handler, so that the new error is not chained to the provider's, whose text may hold the key.
        reason = _last_reason(failed) if self._answered.is_set() else _first_reason(failed)
        if reason is not None:
            self._refusal = self._message(reason, failed)
            raise EndpointError(self._refusal)
        raise self._scrubbed(failed)

    def _message(self, reason: str, error: LMError) -> str:
        said = self._clean(error.message).strip().splitlines()
        detail = f" It says: {said[0][:300]}" if said else ""
        return f"{self._endpoint}: {reason}; {MENDS[reason].format(key=self._key)}.{detail}"

    def _scrubbed(self, error: LMError) -> LMError:
        error.message = self._clean(error.message)
        error.args = tuple(self._clean(arg) if isinstance(arg, str) else arg for arg in error.args)
        error.__cause__ = error.__context__ = None
        return error

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _first_reason(error: LMError) -> str | None:
    """Why the endpoint is useless, seen before it has ever answered; None where only this call is at fault."""
    from dspy.utils import exceptions

    if isinstance(error, exceptions.LMUnsupportedModelError) or error.status == 404:
        return MODEL_UNKNOWN
    if isinstance(error, exceptions.LMAuthError | exceptions.LMConfigurationError):
        return KEY_REFUSED
    transient = (exceptions.LMTransportError, exceptions.LMTimeoutError, exceptions.LMServerError)
    if isinstance(error, (*transient, exceptions.LMRateLimitError)):
        return UNREACHABLE
    return _last_reason(error)


def _last_reason(error: LMError) -> str | None:
    """Why an endpoint that used to answer is useless from now on; None where a later call may succeed."""
    from dspy.utils import exceptions

    if isinstance(error, exceptions.LMBillingError):
        return UNPAID
    # A 403 may be about this call's content; a 401 never is.
    return KEY_REFUSED if isinstance(error, exceptions.LMAuthError) and error.status != 403 else None
