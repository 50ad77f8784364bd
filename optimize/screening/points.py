"""Screened configurations, kept in a file so that none is scored twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from optimize.inference.statistics import mean_and_stderr
from optimize.measures.table import Measure
from optimize.screening.bench import RetrievalBench
from programs.config import PipelineConfig, fingerprint
from programs.embedding import embedder_identity
from programs.reranking import reranker_identity


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration and what its retrieval is worth on the questions with evidence.

    Attributes:
        config: Canonical.
        quality: Mean of the screen's measure.
        stderr: Its standard error, dependent questions counted as such.
        tokens: Mean context tokens of a question.
        latency_ms: Milliseconds that one question takes on its own.
        measures: Means of all measures.
        scores: The screen's measure for each question, in the order of the questions.
    """

    config: PipelineConfig
    quality: float
    stderr: float
    tokens: float
    latency_ms: float
    measures: Mapping[str, float]
    scores: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """A JSON-serializable dictionary that `from_json` reads back."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "config": self.config.as_params()}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read a point back."""
        return cls(**{**line, "config": PipelineConfig.from_params(line["config"]), "scores": tuple(line["scores"])})


class Points:
    """Scores configurations, or reads the score where one was scored before.

    Args:
        file: Where points are kept, one line each.
        bench: Scores retrieval on questions that all have evidence.
        measures: What the bench measures; the first is the screen's.
        clusters: The group of each question.
        on_point: Hears of every point that is newly scored.
    """

    def __init__(
        self,
        file: Path,
        bench: RetrievalBench,
        measures: Sequence[Measure],
        clusters: Sequence[str],
        on_point: Callable[[Point], None],
    ) -> None:
        self.bench = bench
        self._file, self._clusters, self._on_point = file, clusters, on_point
        self._names = [str(measure) for measure in measures]
        self._known = dict(_read(file))

    def score(self, config: PipelineConfig) -> Point:
        """The point of a configuration.

        Raises:
            RagwrightError: A part of it does not fit, or a model fails; points scored before are kept.
        """
        config = config.canonical()
        key = _key(config)
        if key not in self._known:
            point = self._known[key] = self._measure(config)
            with self._file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"key": key, **point.as_json()}) + "\n")
            self._on_point(point)
        return self._known[key]

    def _measure(self, config: PipelineConfig) -> Point:
        found = self.bench.score(config)
        quality, stderr = mean_and_stderr(found.values[:, 0].tolist(), self._clusters)
        return Point(
            config=config,
            quality=quality,
            stderr=stderr,
            tokens=float(found.tokens.mean()),
            latency_ms=found.latency_ms,
            measures=dict(zip(self._names, map(float, found.values.mean(axis=0)), strict=True)),
            scores=tuple(np.round(found.values[:, 0], 6).tolist()),
        )


def _key(config: PipelineConfig) -> str:
    """The configuration together with the versions of the models in it; the prompt format has no part in retrieval."""
    embedder = config.embedder if config.embedder == "none" else embedder_identity(config.embedder)
    settings = {**config.as_params(), "prompt_format": ""}
    return fingerprint([settings, embedder, reranker_identity(config.reranker)])


def _read(file: Path) -> list[tuple[str, Point]]:
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        try:
            content = json.loads(line)
        except ValueError:
            # The last line of a process that was killed while it wrote.
            continue
        found.append((content.pop("key"), Point.from_json(content)))
    return found
