"""Who may ask a served export."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.requests import Request

from optimize.serving.openai import bad_request

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
        key: What clients have to send as `Authorization: Bearer …`; None lets everyone in.
        hosts: Names under which this server may be called; None: any. A page in a browser on this machine can reach a
            server on loopback under a name of its own, and its requests are told by that name.
    """

    key: str | None = None
    hosts: frozenset[str] | None = LOOPBACK_NAMES

    def check(self, request: Request) -> None:
        """Turn down who may not.

        Raises:
            AnswerError: The key or the name is wrong.
        """
        if self.hosts is not None and _name(request.headers.get("host", "")) not in self.hosts:
            raise bad_request("this server answers under its own name only.", "unknown_host", 421)
        sent = request.headers.get("authorization", "")
        if self.key is not None and not hmac.compare_digest(sent.encode(), f"Bearer {self.key}".encode()):
            raise bad_request("the key is missing or wrong; send it as Authorization: Bearer.", "invalid_api_key", 401)

    def __repr__(self) -> str:
        return f"Access(key={'***' if self.key else None}, hosts={self.hosts})"


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").lower()
