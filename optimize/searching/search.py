"""The search over configuration and candidate: each step asks one point a few more questions, where that teaches most.

All points are asked the same questions in the same order, a few at a time, each beginning a few questions after the
one before: so every question is asked early on, and no leader has met only those that happen to come first. Points
that were asked different questions are compared by how others fared on these.

After every step `belief` says what is known of each point, `knowledge_gradient` where the next few questions teach most
for their cost, and Optuna (`proposals`) which points should be on the table at all. Nothing depends on a clock, on
threads or on how much budget is left, so an interrupted search goes on as it would have, and a larger budget continues
a smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from optimize.data.example import Example
from optimize.inference.pareto import knee
from optimize.searching.belief import Belief, Described, Floats
from optimize.searching.knowledge_gradient import Step, best_step, most_different
from optimize.searching.point import BASELINE, Bench, Point, order_of, questions_a_step
from optimize.searching.proposals import Proposals, Told
from programs.config import PipelineConfig

OPEN = 6
"""Configurations that Optuna has proposed and that no question was asked yet: so many are on the table."""

STALE = 25
"""Proposals in a row that were on the table before mean that the sampler has nothing new."""


class Search:
    """One search at work.

    Args:
        bench: Answers questions.
        proposals: Proposes configurations; None where the table is not to grow.
        examples: The search questions, in the order in which they are asked.
        candidates: Ids of the candidates so far.
        on_step: Hears of the point that was asked and of the one that leads, after every step.
        trials: Most points that are asked anything, the baseline not counted.
        frugal: Whether cheap points are wanted, too: then every second step is for a trade-off of score and tokens,
            with weights that go evenly through all of them (Knowles 2006, "ParEGO").

    Attributes:
        finished: Whether nothing is left to ask, whatever the budget.
    """

    def __init__(
        self,
        bench: Bench,
        proposals: Proposals | None,
        examples: Sequence[Example],
        candidates: Iterable[str],
        on_step: Callable[[Point, Point], None] = lambda asked, leader: None,
        trials: int | None = None,
        frugal: bool = False,
    ) -> None:
        self._bench, self._proposals, self._examples = bench, proposals, tuple(examples)
        self._candidates = list(candidates)
        self._on_step, self._limit, self._frugal = on_step, trials, frugal
        self._taken = 0
        self.finished = False
        self._points: dict[tuple[str, str], Point] = {}
        self._configs: dict[str, tuple[PipelineConfig, Mapping[str, Any] | None]] = {}
        self._exhausted = proposals is None
        self._believed: tuple[Belief, list[Point], Floats, Floats] | None = None

    @property
    def rung(self) -> int:
        """Questions of one step."""
        return questions_a_step(len(self._examples))

    @property
    def points(self) -> list[Point]:
        """Everything on the table."""
        return list(self._points.values())

    @property
    def trials(self) -> list[Point]:
        """Points that were asked something, in the order in which they began; the baseline is none."""
        begun = [point for point in self._points.values() if point.unit.startswith("trial-")]
        return sorted(begun, key=lambda point: point.unit)

    def begin(self, config: PipelineConfig, candidate: str) -> Point:
        """Ask the baseline everything: it is what all others are measured by."""
        self._lay(config, None)
        point = self._points[config.fingerprint(), candidate]
        point.unit, point.order = BASELINE, np.arange(len(self._examples))
        self._ask(point, len(self._examples))
        return point

    def lay(self, points: Iterable[Mapping[str, Any]]) -> None:
        """Put configurations on the table, as parameters."""
        for params in points:
            self._lay(PipelineConfig.from_params(dict(params)).canonical(), params)

    def add_candidates(self, candidates: Iterable[str]) -> None:
        """Put candidates on the table, each with every configuration there."""
        for candidate in candidates:
            if candidate not in self._candidates:
                self._candidates.append(candidate)
                for config, params in self._configs.values():
                    self._pair(config, candidate, params)

    def step(self) -> bool:
        """Ask one point a few more questions.

        Returns:
            Whether anything was asked: not if the best step cannot be afforded, or nothing is left to ask.
        """
        self._fill()
        belief, points, values, design = self._belief()
        steps = self._steps(points)
        self.finished = not steps
        if self.finished:
            return False
        worth = self._traded(points, values) if self._frugal and self._taken % 2 else values
        chosen = steps[best_step(belief, [point.described for point in points], worth, design, steps)]
        point = points[chosen.place]
        unit, count = point.unit or f"trial-{len(self.trials):04d}", len(point.rows.rows) + len(chosen.questions)
        if not self._bench.affords(unit, count):
            return False
        if not point.unit:
            point.unit, point.order = unit, order_of(len(self.trials), len(self._examples))
        self._taken += 1
        self._ask(point, count)
        self._on_step(point, self.leader())
        return True

    def leader(self, among: Callable[[Point], bool] = lambda point: True) -> Point:
        """The point that is believed to be best, of those that were asked something."""
        _, points, values, _ = self._belief()
        begun = [place for place, point in enumerate(points) if point.unit and among(point)]
        return points[max(begun, key=lambda place: round(float(values[place]), 9))]

    def estimate(self, point: Point) -> tuple[float, float]:
        """What is believed of a point: its mean score on all search questions, and the standard deviation of that."""
        belief, points, values, design = self._belief()
        place = points.index(point)
        row = design[place : place + 1]
        return float(values[place]), math.sqrt(belief.variances(row).item())

    def finalists(self, size: int) -> list[Point]:
        """Points that may each turn out best, the leader among them unless it is invalid; the baseline is none.

        A trial of which more than a few percent fail speaks for the questions that happened to work: it cannot win.
        """
        belief, points, values, design = self._belief()
        begun = [place for place, point in enumerate(points) if point.unit.startswith("trial-") and point.rows.valid]
        if not begun:
            return []
        chosen = most_different(values[begun], belief.covariance(design[begun], design[begun]), size)
        if self._frugal and (knee := self._knee([points[place] for place in begun], values[begun])) not in chosen:
            chosen[-1:] = [knee]
        return [points[begun[place]] for place in chosen]

    def _knee(self, points: Sequence[Point], values: Floats) -> int:
        """The point of the trade-off that stands out most."""
        return knee(np.stack([-values, np.log(self._tokens(points))], axis=1))

    def told(self) -> list[Told]:
        """The trials as Optuna hears of them."""
        _, points, values, _ = self._belief()
        known = {point.key: float(value) for point, value in zip(points, values, strict=True)}
        found = []
        for point in self.trials:
            if point.params is not None and not point.failing:
                scores = [row.score for row in point.rows.rows if row.score is not None]
                steps = {n: sum(scores[:n]) / n for n in range(self.rung, len(scores) + 1, self.rung)}
                whole = len(point.rows.rows) == len(self._examples)
                params = {**point.params, "candidate": point.candidate}
                found.append(Told(params, (known[point.key],), point.unit, steps, whole))
        return found

    def _ask(self, point: Point, count: int) -> None:
        phase = BASELINE if point.unit == BASELINE else "search"
        examples = [self._examples[place] for place in point.order[:count]]
        point.rows = self._bench.ask(point.unit, phase, point.config, point.candidate, examples)
        self._believed = None

    def _lay(self, config: PipelineConfig, params: Mapping[str, Any] | None) -> bool:
        key = config.fingerprint()
        if key in self._configs:
            known = self._configs[key]
            self._configs[key] = (config, known[1] or params)
            return False
        self._configs[key] = (config, params)
        for candidate in self._candidates:
            self._pair(config, candidate, params)
        return True

    def _pair(self, config: PipelineConfig, candidate: str, params: Mapping[str, Any] | None) -> None:
        key = config.fingerprint()
        itself = (("configuration", key), ("candidate", candidate), ("point", (key, candidate)))
        effects = (*config.as_params().items(), *itself)
        described = Described(effects, self._bench.foresee(config, self._examples), ("candidate", candidate))
        point = Point(config, candidate, params, described, self._bench.tokens(config, candidate))
        self._points[point.key] = point
        self._believed = None

    def _fill(self) -> None:
        """Let Optuna propose until enough untried configurations are on the table."""
        stale = 0
        while not self._exhausted and self._untried() < OPEN:
            assert self._proposals is not None, "else there is nothing to exhaust"
            params, config, _ = self._proposals.ask(self.told(), self._candidates)
            stale = 0 if self._lay(config, params) else stale + 1
            self._exhausted = stale >= STALE

    def _untried(self) -> int:
        tried = {point.key[0] for point in self._points.values() if point.unit}
        return len(self._configs.keys() - tried)

    def _belief(self) -> tuple[Belief, list[Point], Floats, Floats]:
        if self._believed is None:
            points = list(self._points.values())
            asked = [point.asked() for point in points if point.rows.rows]
            belief = Belief(asked, len(self._examples), [point.described for point in points])
            values, design = belief.about([point.described for point in points])
            values = np.where([point.failing for point in points], -np.inf, values)
            self._believed = belief, points, values, design
        return self._believed

    def _steps(self, points: Sequence[Point]) -> list[Step]:
        """What could be asked next: of each point that is not finished, the next few questions."""
        costs = self._costs(points)
        full = self._limit is not None and len(self.trials) >= self._limit
        next_order = order_of(len(self.trials), len(self._examples))
        found = []
        for place, point in enumerate(points):
            done = len(point.rows.rows)
            if point.failing or done == len(self._examples) or (full and not point.unit):
                continue
            order = point.order if point.unit else next_order
            questions = order[done : done + self.rung]
            found.append(Step(place, questions, float(len(questions) * costs[place])))
        return found

    def _traded(self, points: Sequence[Point], values: Floats) -> Floats:
        """What points are worth when tokens count, with a weight of their own for each step."""
        weight = halton(self._taken // 2 + 1)
        tokens = np.log(self._tokens(points))
        known = np.isfinite(values)
        spans = np.ptp(values[known]), max(1e-9, float(np.ptp(tokens)))
        found: Floats = values - weight * spans[0] * (tokens - tokens.min()) / spans[1]
        return found

    def _costs(self, points: Sequence[Point]) -> Floats:
        """Of a question to each point, in units of the mean question: a call counts as much as its tokens."""
        tokens = self._tokens(points)
        costs: Floats = 1.0 + tokens / float(tokens.mean())
        return costs

    def _tokens(self, points: Sequence[Point]) -> Floats:
        """Prompt tokens of a question to each point.

        Those that were recorded; of a point that was not asked yet those foreseen, as far off as the forecasts were
        until now.
        """
        foreseen = np.array([point.expected for point in points])
        seen = np.array([point.rows.total("prompt_tokens") / max(1, len(point.rows.rows)) for point in points])
        known = np.array([bool(point.rows.rows) for point in points])
        scale = seen[known].sum() / foreseen[known].sum() if known.any() and seen[known].sum() > 0 else 1.0
        return np.maximum(1.0, np.where(known & (seen > 0), seen, foreseen * scale))


def halton(number: int) -> float:
    """The number's digits in base 2 behind the point, in reverse: 1/2, 1/4, 3/4, 1/8 …, evenly through (0, 1)."""
    found, part = 0.0, 0.5
    while number:
        found += part * (number % 2)
        number, part = number // 2, part / 2
    return found
