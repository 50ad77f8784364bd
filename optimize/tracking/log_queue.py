"""Jobs that are done behind the search: one thread does them in order, and nobody waits but at the very end."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

PAUSE_S = 30.0
"""After a job that has to be done later nothing is tried for so long, unless somebody waits for the jobs."""


class TryLaterError(Exception):
    """Raised by a job that cannot be done now, such as one for a server that is down."""


class LogQueue:
    """Does jobs one after another in a thread of its own, which begins with the first of them.

    A job has a key. A newer job with the key of one that still waits takes its place in the line, so that there are
    never more of them than keys, however long nothing can be done. A job that raises `TryLaterError` goes back to the
    head of the line. Anything else that a job raises is a defect: it is kept in `error`, and the next job is done.

    Args:
        pause_s: Seconds until something is tried again after a `TryLaterError`.

    Attributes:
        error: What the first defective job raised, or None.
        seconds: Time spent on jobs so far.
    """

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._pause_s = pause_s
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._busy = self._hurried = self._stopped = False
        self._resume_at, self._ended = 0.0, 0
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Jobs that are not done, the one at work included."""
        return len(self._waiting) + self._busy

    def put(self, key: str, job: Callable[[], None], *, first: bool = False) -> None:
        """Add a job; at the head of the line if it is to be done `first`. After `stop` nothing is taken any more."""
        with self._changed:
            if self._stopped:
                return
            self._waiting[key] = job
            if first:
                self._waiting.move_to_end(key, last=False)
            if self._thread is None:
                # A server that never answers must not keep the process from ending.
                self._thread = threading.Thread(target=self._work, name="log-queue", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, patience_s: float, total_s: float = math.inf) -> int:
        """Wait until all jobs are done, or one has to be done later, or nothing has ended for a while.

        Args:
            patience_s: How long a single job may take.
            total_s: How long all of them may take together.

        Returns:
            Jobs that are not done.
        """
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            until = time.monotonic() + total_s
            while len(self) and self._hurried:
                if not self._one_ends(min(patience_s, until - time.monotonic())):
                    break
            self._hurried = False
            return len(self)

    def stop(self, patience_s: float = 0.0) -> None:
        """Take no more jobs and do none of those that wait; the one at work gets a little time to end."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _one_ends(self, patience_s: float) -> bool:
        """Wait until a job has ended; whether one did in time."""
        ended = self._ended
        return self._changed.wait_for(lambda: self._ended > ended, max(0.0, patience_s))

    def _work(self) -> None:
        while (found := self._next()) is not None:
            key, job = found
            begun, later = time.perf_counter(), False
            try:
                job()
            except TryLaterError:
                later = True
            except BaseException as error:  # noqa: BLE001  # raised again where somebody asks for it
                self.error = self.error or error
            with self._changed:
                self.seconds += time.perf_counter() - begun
                self._busy, self._ended = False, self._ended + 1
                if later:
                    self._put_back(key, job)
                self._changed.notify_all()

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        """The next job as soon as it may be done; None at the end."""
        with self._changed:
            while not self._stopped:
                pause = 0.0 if self._hurried else self._resume_at - time.monotonic()
                if self._waiting and pause <= 0:
                    self._busy, self._resume_at = True, 0.0
                    return self._waiting.popitem(last=False)
                self._changed.wait(pause if self._waiting else None)
            return None

    def _put_back(self, key: str, job: Callable[[], None]) -> None:
        self._hurried, self._resume_at = False, time.monotonic() + self._pause_s
        if not self._stopped:
            self._waiting.setdefault(key, job)
            self._waiting.move_to_end(key, last=False)
