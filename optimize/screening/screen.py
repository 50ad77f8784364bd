"""The screen: retrieval configurations scored without any LM call, as a multi-objective Optuna study.

It looks at all validation questions that have evidence; the search that follows gets a short list of what is worth an
LM call. What it found is checked on training questions, which it does not look at before.
"""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.data.dataset import Dataset
from optimize.data.example import Example
from optimize.data.splits import group_examples
from optimize.inference.pareto import front, representatives
from optimize.inference.statistics import PairedDifference, paired_difference
from optimize.measures.table import parse_measure
from optimize.runs.progress import Progress
from optimize.screening.bench import RetrievalBench
from optimize.screening.points import Point, Points
from optimize.screening.space import all_points, deepest, dimensions, screened_space
from optimize.settings.space import choose, distributions, fixed_params, whole_sampler
from optimize.settings.study import StudyConfig
from programs.chunking import VERSIONS
from programs.config import PipelineConfig, fingerprint
from programs.errors import RagwrightError

if TYPE_CHECKING:
    import optuna

OTHER_MEASURES = ("span_recall", "span_precision", "iou", "gold_in_context", "precision_omega", "nDCG@10", "RR", "AP")
"""Measured beside the screen's own."""

STARTUP, ROUND = 0.4, 0.2
"""Shares of a sampled screen that are drawn at random, and that are drawn before the sampler hears of their results.
Points of one round are scored chunking by chunking."""

_STALE_ROUNDS = 3

FUSED = ("hybrid", "weighted")
"""Retrievers that ask both vectors and words."""


@dataclass(frozen=True)
class Worth:
    """What changing one setting of the pick does, all else held.

    Attributes:
        name: The setting.
        value: What it is changed to.
        difference: Changed minus pick in the screen's measure; None where the change has no effect on the pipeline.
        tokens: Change in mean context tokens.
    """

    name: str
    value: Any
    difference: PairedDifference | None
    tokens: float = 0.0


@dataclass(frozen=True)
class Check:
    """The pick against the baseline on questions that the screen has not seen."""

    baseline: Point
    pick: Point
    difference: PairedDifference


@dataclass(frozen=True)
class Screened:
    """What a screen found.

    Attributes:
        folder: Where its files lie.
        measure: What quality means.
        baseline: The study's baseline.
        points: All scored configurations, the baseline first.
        front: Those that no other beats in quality, context tokens and latency at once, fewest tokens first.
        pick: The best quality at no more context tokens than `max_tokens`.
        max_tokens: The baseline's context tokens, or what the study says.
        worth: What each setting is worth at the pick.
        shortlist: A few points that stand for the front, as parameters of the space.
        check: The pick on unseen questions; None where there are none with evidence.
        scored: Number of questions with evidence.
        unscored: Number of questions without evidence, which nothing is said about.
        left: What is left to the search, one line each.
        seconds: Wall-clock time of this run of it.
    """

    folder: Path
    measure: str
    baseline: Point
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    pick: Point
    max_tokens: float
    worth: tuple[Worth, ...]
    shortlist: tuple[dict[str, Any], ...]
    check: Check | None
    scored: int
    unscored: int
    left: tuple[str, ...]
    seconds: float


@dataclass
class Screen:
    """One screen at work.

    Attributes:
        study: The study file.
        dataset: The data.
        runs: The folder that everything is kept under.
        progress: Hears what happens.
    """

    study: StudyConfig
    dataset: Dataset
    runs: Path
    progress: Progress
    _tried: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space, self.left = screened_space(self.study)
        names = [self.study.screen.measure, *OTHER_MEASURES]
        self.measures = [parse_measure(name) for name in dict.fromkeys(names)]
        documents = {document.id: document for document in self.dataset.corpus.documents}
        self.groups = group_examples(self.dataset.examples, documents)
        self.examples = [example for example in self.dataset.validation if example.evidence]
        if not self.examples:
            raise RagwrightError(
                f"{self.dataset.path}: no validation question has evidence, so retrieval cannot be measured; "
                f"`ragwright data locate {self.dataset.path}` finds evidence for answers."
            )
        key = fingerprint([self.dataset.fingerprint, list(map(str, self.measures)), VERSIONS, self.study.seed])
        self.folder = self.runs / "screens" / f"{self.study.name}-{key}"

    def run(self) -> Screened:
        """Score configurations, those that were scored before from their file.

        Raises:
            RagwrightError: A part does not fit or a model fails; what was scored is kept.
        """
        with _uncollected():
            return self._run(time.monotonic())

    def _run(self, begun: float) -> Screened:
        self.folder.mkdir(parents=True, exist_ok=True)
        baseline = self.points.score(self._baseline)
        self._search()
        tried = [self.points.score(PipelineConfig.from_params(params)) for params in self._tried.values()]
        limit = float(self.study.screen.max_context_tokens or baseline.tokens)
        pick = _pick(tried, limit)
        worth = self._worth(pick)
        every = _distinct([baseline, *tried])
        return Screened(
            folder=self.folder,
            measure=self.study.screen.measure,
            baseline=baseline,
            points=tuple(every),
            front=tuple(_front(every)),
            pick=pick,
            max_tokens=limit,
            worth=worth,
            shortlist=tuple(self._shortlist(tried, pick)),
            check=self._check(pick),
            scored=len(self.examples),
            unscored=len(self.dataset.validation) - len(self.examples),
            left=tuple(self.left),
            seconds=time.monotonic() - begun,
        )

    @cached_property
    def points(self) -> Points:
        """Scores configurations on the validation questions with evidence."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._points("validation", self.examples)

    @property
    def _baseline(self) -> PipelineConfig:
        return PipelineConfig(**self.study.baseline.model_dump())

    def _points(self, split: str, examples: Sequence[Example]) -> Points:
        bench = RetrievalBench(
            self.dataset.corpus,
            self.runs,
            examples,
            self.measures,
            max(deepest(self.space), self.study.baseline.retrieve_k),
            lambda done, total: self.progress.working("embedding", done, total),
        )
        clusters = [self.groups[example.id] for example in examples]
        wanted = self.study.screen.configurations

        def on_point(point: Point) -> None:
            self.progress.working(f"screen, {split}", min(wanted, len(self._tried)), wanted)

        return Points(self.folder / f"{split}.jsonl", bench, self.measures, clusters, on_point)

    def _search(self) -> None:
        """Try every point of a small space, and of a large one those that Optuna asks for."""
        wanted = self.study.screen.configurations
        points = all_points(self.space, wanted)
        study = _new_study()
        if points is not None:
            for params in points:
                study.enqueue_trial({name: params[name] for name in distributions(self.space, [""])})
            self._round(study, len(points))
        stale = 0
        while points is None and len(self._tried) < wanted and stale < _STALE_ROUNDS:
            share = ROUND if self._tried else STARTUP
            before = len(self._tried)
            self._round(study, min(wanted - before, max(1, round(share * wanted))))
            stale = 0 if len(self._tried) > before else stale + 1
        self._keep_journal(study)

    def _round(self, study: optuna.Study, size: int) -> None:
        """Ask for some points, score those of one chunking together, and tell."""
        asked = []
        for _ in range(size):
            with warnings.catch_warnings():
                # What Optuna calls experimental.
                warnings.simplefilter("ignore")
                study.sampler = whole_sampler(
                    self.study.sampler, self.study.seed, len(study.get_trials(deepcopy=False))
                )
                trial = study.ask()
                config, _ = choose(trial, self.space, [""])
            asked.append((trial, config))
        for trial, config in sorted(asked, key=lambda pair: _together(pair[1])):
            self._tried.setdefault(config.fingerprint(), fixed_params(self.space) | trial.params)
            point = self.points.score(config)
            study.tell(trial.number, [point.quality, point.tokens, _work(config)])

    def _keep_journal(self, study: optuna.Study) -> None:
        """The trials as an Optuna journal, for its dashboard; in memory they cost a tenth of the time."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        space = {name: repr(values) for name, values in distributions(self.space, [""]).items()}
        name = f"{self.study.name}-{fingerprint([space, self.study.screen.configurations])}"
        storage = JournalStorage(JournalFileBackend(str(self.folder / "journal.log")))
        if name not in optuna.get_all_study_names(storage):
            kept = optuna.create_study(storage=storage, study_name=name, directions=study.directions)
            kept.add_trials(study.get_trials(deepcopy=False))

    def _worth(self, pick: Point) -> tuple[Worth, ...]:
        clusters = [self.groups[example.id] for example in self.examples]
        # As it was asked for: a canonical configuration no longer knows what it does without, such as an embedder.
        asked = PipelineConfig.from_params(self._tried[pick.config.fingerprint()])
        found = []
        for name, values in dimensions(self.space).items():
            for value in values:
                if value == getattr(asked, name):
                    continue
                changed = replace(asked, **{name: value}).canonical()
                if changed == pick.config:
                    found.append(Worth(name, value, None))
                    continue
                point = self.points.score(changed)
                difference = paired_difference(np.subtract(point.scores, pick.scores).tolist(), clusters)
                found.append(Worth(name, value, difference, point.tokens - pick.tokens))
        return tuple(found)

    def _shortlist(self, tried: Sequence[Point], pick: Point) -> list[dict[str, Any]]:
        """Points that together stand for the trade-off of quality against tokens, the pick first."""
        losses = np.array([[1.0 - point.quality, math.log(max(1.0, point.tokens))] for point in tried])
        chosen = representatives(losses, self.study.screen.shortlist, [tried.index(pick)])
        return [self._tried[tried[row].config.fingerprint()] for row in chosen]

    def _check(self, pick: Point) -> Check | None:
        examples = [example for example in self.dataset.train if example.evidence]
        if not examples:
            return None
        points = self._points("train", examples)
        base, new = points.score(self._baseline), points.score(pick.config)
        clusters = [self.groups[example.id] for example in examples]
        return Check(base, new, paired_difference(np.subtract(new.scores, base.scores).tolist(), clusters))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's cycle collector, which would walk again and again through chunks and rankings that have none.

    Measured: a fifth of the time of a screen.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _new_study() -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["maximize", "minimize", "minimize"])


def _together(config: PipelineConfig) -> tuple[Any, ...]:
    """Configurations that share an index, then a ranking, stand side by side in this order."""
    chunking = (config.splitter, config.chunk_size, config.chunk_overlap, config.context_prefix)
    return (*chunking, config.embedder, config.retriever, config.dense_weight, config.reranker, config.retrieve_k)


def _work(config: PipelineConfig) -> float:
    """How much is done for a question, roughly: what is chosen by a clock would differ from run to run."""
    return (config.retriever in FUSED) + (config.retrieve_k if config.reranker != "none" else 0.0)


def _about(latency_ms: float) -> float:
    """The nearest power of four: a clock is too noisy for more."""
    return 4.0 ** round(math.log(max(latency_ms, 1e-3), 4))


def _distinct(points: Sequence[Point]) -> list[Point]:
    return list({point.config.fingerprint(): point for point in points}.values())


def _front(points: Sequence[Point]) -> list[Point]:
    losses = np.array([[-point.quality, point.tokens, _about(point.latency_ms)] for point in points])
    return sorted((points[row] for row in front(losses)), key=lambda point: (point.tokens, -point.quality))


def _pick(points: Sequence[Point], max_tokens: float) -> Point:
    """The best quality within the limit; where nothing is, the fewest tokens."""
    within = [point for point in points if point.tokens <= max_tokens]
    if not within:
        return min(points, key=lambda point: (point.tokens, -point.quality, _work(point.config)))
    return max(within, key=lambda point: (point.quality, -point.tokens, -_work(point.config)))
