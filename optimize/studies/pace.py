"""How long a study has worked, and how long its search may still take."""

from __future__ import annotations

import math
import time

from optimize.runs.run_dir import RunDir
from optimize.searching.point import Point
from optimize.studies.accounts import verdict_begun
from optimize.studies.allocation import Allocation


class Clock:
    """Wall-clock time over all processes that worked on a study.

    Args:
        run: The study's folder, where earlier time is kept.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._earlier = float((run.read_json("clock.json") or {"seconds": 0.0})["seconds"])
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time so far."""
        return self._earlier + time.monotonic() - self._begun

    def keep(self) -> None:
        """Write it down, for the next process should this one end here."""
        self._run.write_json("clock.json", {"seconds": self.seconds})


class Pace:
    """What is left of a study's minutes.

    Args:
        run: The study's folder.
        minutes: What is allowed, or None.
        threads: Questions that are answered at once.
    """

    def __init__(self, run: RunDir, minutes: float | None, threads: int) -> None:
        self.clock = Clock(run)
        self._run, self._minutes, self._threads = run, minutes, threads

    @property
    def left(self) -> float:
        """Seconds; infinite without a limit."""
        return math.inf if self._minutes is None else 60 * self._minutes - self.clock.seconds

    def a_question(self, point: Point) -> float:
        """Seconds that a question to a point takes, with as many threads as there are."""
        return point.rows.total("latency_s") / max(1, len(point.rows.rows)) / self._threads

    def left_for_search(self, allocation: Allocation, baseline: Point, leader: Point) -> float:
        """Seconds, what the verdict will take deducted, at the pace of what leads and of the baseline."""
        if self._minutes is None or not allocation.verdict_possible or verdict_begun(self._run):
            return self.left
        base, best = self.a_question(baseline), self.a_question(leader)
        confirm = len(allocation.confirm) * (allocation.finalists * best + base)
        return self.left - confirm - len(allocation.test) * (best + base)
