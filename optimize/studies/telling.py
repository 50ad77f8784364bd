"""What a study says of itself: to people, to a listener such as MLflow, and in its outcome."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.outcome import Entry, Phase, summarize
from optimize.inference.selection import optimism
from optimize.searching.point import BASELINE, Point
from optimize.searching.search import Search
from optimize.studies.pace import Pace
from optimize.studies.workbench import Workbench

NOTEWORTHY = 0.01
"""Gain of the best estimate that is worth a line of progress."""


class Listener(Protocol):
    """Is told of every finished evaluation, such as MLflow. It never decides."""

    def entry(self, entry: Entry, evaluation: Evaluation, messages: Callable[[], list[dict[str, Any]]]) -> None:
        """An evaluation is finished; `messages` renders what the LM is sent."""


class Teller:
    """Puts evaluations into entries and says them.

    Args:
        bench: Has answered them.
        search: Believes something of each point.
        pace: Its clock is kept at every entry.
        listener: Is told of every finished evaluation.
    """

    def __init__(self, bench: Workbench, search: Search, pace: Pace, listener: Listener | None) -> None:
        self._bench, self._search, self._pace, self._listener = bench, search, pace, listener
        self._reached = -math.inf

    def finished(self, unit: str, phase: Phase, point: Point, rows: Evaluation) -> Entry:
        """An evaluation is finished: say so to everyone."""
        entry = self._entry(unit, phase, point, rows)
        self._tell(entry, rows)
        self._bench.progress.entry(entry, best=False)
        self._pace.clock.keep()
        return entry

    def step(self, asked: Point, leader: Point) -> None:
        """The search has asked a point more questions: say so to the listener, and where something better was found."""
        self._pace.clock.keep()
        self._tell(self.believed(asked), asked.rows)
        estimate = self._search.estimate(leader)[0]
        if leader.unit != BASELINE and estimate > self._reached:
            self._reached = estimate + NOTEWORTHY
            self._bench.progress.entry(self.believed(leader), best=True)

    def believed(self, point: Point) -> Entry:
        """A point of the search, with what is believed of it."""
        phase: Phase = "baseline" if point.unit == BASELINE else "search"
        return self._entry(point.unit, phase, point, point.rows, *self._search.estimate(point))

    def trials(self) -> tuple[Entry, ...]:
        """Every trial of a search that has ended, each told to the listener."""
        found = [(self.believed(point), point.rows) for point in self._search.trials]
        for entry, rows in found:
            self._tell(entry, rows)
        return tuple(entry for entry, _ in found)

    def optimism(self) -> float | None:
        """By how much the best trial's search score is expected to be too high because it is the best of many."""
        examples, points = self._bench.allocation.search, [p for p in self._search.trials if not p.failing]
        if len(points) < 2:
            return None
        scores = np.full((len(points), len(examples)), np.nan)
        for row, point in zip(scores, points, strict=True):
            found = point.asked()
            row[found.questions] = found.scores
        groups = self._bench.allocation.groups
        return optimism(scores, [groups[e.id] for e in examples], self._bench.study.seed)

    def _entry(
        self,
        unit: str,
        phase: Phase,
        point: Point,
        rows: Evaluation,
        estimate: float | None = None,
        spread: float | None = None,
    ) -> Entry:
        allocation = self._bench.allocation
        asked, whole = len(rows.rows), len(allocation.search)
        note = f"asked {asked} of {whole} questions" if phase == "search" and asked < whole else ""
        summary = summarize(rows, allocation.groups)
        return Entry(unit, phase, point.config, point.candidate, summary, note, estimate, spread)

    def _tell(self, entry: Entry, rows: Evaluation) -> None:
        if self._listener is not None:
            candidate = self._bench.candidates[entry.candidate]
            self._listener.entry(entry, rows, lambda: self._bench.messages(entry.config, candidate))
