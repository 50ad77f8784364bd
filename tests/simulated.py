"""Studies whose scores are drawn at random: what search, confirm and test make of a truth that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from scipy import special

from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.searching.belief import Floats
from optimize.searching.decision import Rules, Tested, confirm, open_test
from optimize.searching.point import Point
from optimize.searching.search import Search
from programs.config import PipelineConfig

Effect = Callable[[PipelineConfig, str], float]

SIZES = {"search": 32, "confirm": 40, "test": 80}
CHUNK_SIZES, TOP_KS = (64, 96, 128, 192, 256), (1, 2, 3, 4, 5, 6)
CLONES = [{"chunk_size": size, "top_k": top_k} for size, top_k in product(CHUNK_SIZES, TOP_KS)]
BASELINE = PipelineConfig(chunk_size=512, top_k=3).canonical()
RULES = Rules(finalists=3, tolerance=0.02, smallest_effect=0.05)

GROUP, RETRIEVAL = 0.2, 0.4
"""Share of what questions are like that is their group's; share of what is a point's own that is its retrieval's."""


def nothing(config: PipelineConfig, candidate: str) -> float:
    """Every point is as good as every other."""
    return 0.0


@dataclass
class SimulatedBench:
    """Draws scores: a question's difficulty and its group's are shared by all points, the rest is each point's own.

    Attributes:
        seed: Of everything.
        effect: What a point adds to the mean score.
        binary: Whether scores are 0 or 1; else they are spread over [0, 1], and about half of them are 0.
        mean: Score of a point without effect.
        calls: What the search may spend.
        sizes: Questions of each phase.
        alike: Share of a latent score that is the question's: the scores of two points then correlate by about .6.
        fails: Whether the answer of a point to a question fails.
        spent: Questions asked by baseline and search.
        asked: Unit -> questions asked, in this order.
    """

    seed: int
    effect: Effect = nothing
    binary: bool = True
    mean: float = 0.3
    calls: int = 400
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)
    fails: Callable[[PipelineConfig, str], bool] = lambda config, example_id: False
    spent: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = np.random.default_rng([self.seed, 0])
        # The scores of two points correlate by .6: cutting a normal at a threshold takes some of it away.
        self._alike = 0.8 if self.binary else 0.67
        self._shared: list[Floats] = []
        for phase, size in self.sizes.items():
            # Groups of unequal size, four questions each on average.
            count = max(2, size // 4)
            owners = generator.choice(count, size, p=generator.dirichlet(np.full(count, 3.0)))
            self.examples[phase] = [Example(f"{phase}-{n}", f"question {n} of {phase}", ("x",)) for n in range(size)]
            self.groups |= {example.id: f"{phase}-{o}" for example, o in zip(self.examples[phase], owners, strict=True)}
            common = generator.standard_normal(count)[owners]
            self._shared.append(np.sqrt(GROUP) * common + np.sqrt(1 - GROUP) * generator.standard_normal(size))
        self._difficulty = np.concatenate(self._shared)
        every = [example for examples in self.examples.values() for example in examples]
        self._places = {example.id: place for place, example in enumerate(every)}
        self._every, self._drawn = every, dict[tuple[PipelineConfig, str], Floats]()
        self._rows = dict[tuple[PipelineConfig, str], list[Row]]()

    def ask(
        self, unit: str, phase: Any, config: PipelineConfig, candidate: str, examples: Sequence[Example]
    ) -> Evaluation:
        """All rows are drawn at once; those asked before are not spent again."""
        if phase in ("baseline", "search"):
            self.spent += max(0, len(examples) - self.asked.get(unit, 0))
        self.asked[unit] = max(len(examples), self.asked.get(unit, 0))
        rows = self._all_rows(config, candidate)
        return Evaluation(tuple(rows[self._places[example.id]] for example in examples))

    def affords(self, unit: str, count: int) -> bool:
        missing = count - self.asked.get(unit, 0)
        return missing <= 0 or self.spent + missing <= self.calls

    def foresee(self, config: PipelineConfig, examples: Sequence[Example]) -> Floats:
        """Whether retrieval finds what it should, and the length of the context."""
        places = [self._places[example.id] for example in examples]
        found = (self._difficulty + self._draw(config, "retrieval"))[places] < 0
        return np.stack([found.astype(float), np.full(len(places), config.top_k / 4)], axis=1)

    def tokens(self, config: PipelineConfig, candidate: str) -> float:
        return float(config.chunk_size * config.top_k)

    def scores(self, config: PipelineConfig, candidate: str) -> Floats:
        """Of all questions, those of search first; a low latent value is an easy question."""
        own = np.sqrt(RETRIEVAL) * self._draw(config, "retrieval") + np.sqrt(1 - RETRIEVAL) * self._draw(
            config, candidate
        )
        latent = np.sqrt(self._alike) * self._difficulty + np.sqrt(1 - self._alike) * own
        rank = special.ndtr(latent)
        mean = min(0.95, max(0.02, self.mean + self.effect(config, candidate)))
        # Continuous: falls from 1 to 0 over the easiest 2 * mean questions.
        return (rank < mean).astype(float) if self.binary else np.maximum(0.0, 1 - rank / (2 * mean))

    def _all_rows(self, config: PipelineConfig, candidate: str) -> list[Row]:
        key = config, candidate
        if key not in self._rows:
            tokens = int(self.tokens(config, candidate))
            self._rows[key] = [
                Row(example.id, None, None, calls=1, error="failed")
                if self.fails(config, example.id)
                else Row(example.id, float(score), "x", prompt_tokens=tokens, calls=1)
                for example, score in zip(self._every, self.scores(config, candidate), strict=True)
            ]
        return self._rows[key]

    def _draw(self, config: PipelineConfig, what: str) -> Floats:
        key = config, what
        if key not in self._drawn:
            text = f"{self.seed}/{config.fingerprint()}/{what}".encode()
            own = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
            self._drawn[key] = np.random.default_rng(own).standard_normal(len(self._every))
        return self._drawn[key]


def explore(
    bench: SimulatedBench,
    points: Sequence[Mapping[str, Any]] = CLONES,
    candidates: Sequence[str] = ("bare",),
    *,
    frugal: bool = False,
) -> tuple[Search, Point]:
    """The search until the budget ends, and the baseline as it asked it."""
    search = Search(bench, None, bench.examples["search"], candidates, frugal=frugal)
    baseline = search.begin(BASELINE, candidates[0])
    search.lay(points)
    while search.step():
        pass
    return search, baseline


def decide(
    bench: SimulatedBench,
    points: Sequence[Mapping[str, Any]] = CLONES,
    candidates: Sequence[str] = ("bare",),
    rules: Rules = RULES,
) -> tuple[Point | None, Tested | None]:
    """The whole search, confirm and test: what was chosen, and how it fared unless that is the baseline."""
    search, baseline = explore(bench, points, candidates)
    chosen = confirm(bench, search, baseline, bench.examples, bench.groups, rules).chosen
    if chosen is None or chosen is baseline:
        return chosen, None
    return chosen, open_test(bench, baseline, chosen, bench.examples["test"], bench.groups, rules)
