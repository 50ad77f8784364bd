"""Search and compiling in turns: which of the two gets the next calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimize.searching.point import Point
from optimize.searching.search import Search
from programs.config import PipelineConfig

SHARE, LEAST_SHARE, MOST_SHARE = 0.5, 0.125, 1.0
"""Calls that compiling may have taken for each call of the search: at first, at least and at most."""

CYCLES = 2
"""How often each optimizer has its turn: on the pipeline that looks best at first, and again on the best one later."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of an optimizer.

    Attributes:
        name: Of the optimizer.
        params: Its parameters.
        most_calls: LM calls that it takes at most.
    """

    name: str
    params: Any
    most_calls: int


@dataclass
class Explorer:
    """Lets optimizers have their turns while the search goes on.

    An optimizer's turn comes when the search has spent enough beside what compiling would then have taken: as much as
    the share allows, which follows what each has gained a call so far. Compiling has gained what the best point is
    believed to be better than the best one with bare prompts, the search what it is better than the best one with the
    baseline's pipeline. So the order is the same whatever the budget is.

    Attributes:
        search: With the baseline asked.
        turns: The optimizers, in the order of the study file.
        compile: Runs a turn, under its number, on a pipeline: the ids of the new candidates and the calls that it took;
            None where it cannot be afforded.
        bare: Id of the candidate without prompts.
        baseline: As it was asked.
        first: The pipeline to compile on before the search has asked anything else.
    """

    search: Search
    turns: Sequence[Turn]
    compile: Callable[[int, Turn, PipelineConfig], tuple[Sequence[str], int] | None]
    bare: str
    baseline: Point
    first: PipelineConfig
    _calls: int = 0
    _done: int = 0
    _compiled: set[tuple[str, str]] = field(default_factory=set)

    def run(self) -> None:
        """Explore until the budget ends or nothing is left to try."""
        going = True
        while going:
            going = self._compile_next() or self.search.step()
            if not going and self.search.finished:
                going = self._compile_next(waiting=False)

    def _compile_next(self, *, waiting: bool = True) -> bool:
        """Let the next optimizer have its turn, once it is due."""
        while self._done < CYCLES * len(self.turns):
            turn = self.turns[self._done % len(self.turns)]
            pipeline = self._pipeline()
            if (turn.name, pipeline.fingerprint()) in self._compiled:
                self._done += 1
                continue
            if waiting and self._calls + turn.most_calls > self._share() * self._searched():
                return False
            made = self.compile(self._done, turn, pipeline)
            if made is None:
                self._done = CYCLES * len(self.turns)
                return False
            self._compiled.add((turn.name, pipeline.fingerprint()))
            self._done += 1
            candidates, calls = made
            self._calls += calls
            self.search.add_candidates(candidates)
            return True
        return False

    def _pipeline(self) -> PipelineConfig:
        """The best pipeline so far."""
        return self.search.leader().config if self.search.trials else self.first

    def _searched(self) -> int:
        """Calls of the search so far, the baseline's included."""
        return sum(int(point.rows.total("total_calls")) for point in [self.baseline, *self.search.trials])

    def _share(self) -> float:
        if not self._calls or not self.search.trials:
            return SHARE
        best = self._best(lambda point: True)
        compiling = max(0.0, best - self._best(lambda point: point.candidate == self.bare)) / self._calls
        searching = max(0.0, best - self._best(lambda point: point.config == self.baseline.config)) / self._searched()
        if compiling == searching:
            return SHARE
        return min(MOST_SHARE, max(LEAST_SHARE, SHARE * compiling / max(searching, 1e-9)))

    def _best(self, among: Callable[[Point], bool]) -> float:
        return self.search.estimate(self.search.leader(among))[0]


def turns_of(optimizers: Mapping[str, Any], most_calls: Callable[[str, Any], int]) -> list[Turn]:
    """The turns of a study's optimizers, the cheapest first; equal ones as in the file."""
    turns = [Turn(name, params, most_calls(name, params)) for name, params in optimizers.items()]
    return sorted(turns, key=lambda turn: turn.most_calls)
