"""A server that dies on the way: its port closes, it hangs, or a gateway answers in its place."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from tests.openai_server import OpenAIServer

CLOSED, DROPPED, HANGING, GATEWAY = "closed", "dropped", "hanging", "gateway"
DEATHS = (CLOSED, DROPPED, HANGING, GATEWAY)


class MortalServer(OpenAIServer):
    """Answers `lives` requests and is dead from then on, until `revive`.

    Args:
        death: closed: the port refuses connections, and open ones are cut; dropped: connections are cut; hanging:
            nothing is answered for `hangs_s` seconds; gateway: 503.
        lives: Requests that are answered; None: all.
        failing: Share of the requests that fail at random with a 500 while it lives.
        **settings: Those of `OpenAIServer`.
    """

    def __init__(
        self, death: str = CLOSED, lives: int | None = None, failing: float = 0.0, hangs_s: float = 1.0, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.death, self.lives, self.failing, self.hangs_s = death, lives, failing, hangs_s
        self.answered = self.failed = self.asked_dead = 0
        self._random = random.Random(0)
        self._life = threading.Lock()

    def __enter__(self) -> MortalServer:
        super().__enter__()
        # A cut connection is meant: no traceback.
        self._http.handle_error = lambda request, address: None  # type: ignore[method-assign]
        return self

    def revive(self) -> None:
        """Live again, at the same address, for good. A closed port stays closed."""
        assert self.death != CLOSED, "another process may have taken the port"
        self.lives = None

    def _respond(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        with self._life:
            dead = self.lives is not None and self.answered >= self.lives
            fails = not dead and self._random.random() < self.failing
            self.answered += not dead and not fails
            self.failed += fails
            self.asked_dead += dead
            if dead and self.death == CLOSED and self.asked_dead == 1:
                self._http.shutdown()
                self._http.server_close()
        if fails:
            return 500, {"error": {"message": "a bad moment"}}
        if not dead:
            return super()._respond(path, body, key)
        if self.death == GATEWAY:
            return 503, {"error": {"message": "no server is available"}}
        if self.death == HANGING:
            time.sleep(self.hangs_s)
        raise ConnectionAbortedError("the server is dead")
