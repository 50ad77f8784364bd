"""Where answers are lost: what became of the gold of each question on its way, and of the answer at the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from optimize.data.example import Example
from optimize.evaluation.evaluate import Row
from programs.config import PipelineConfig, fingerprint
from programs.corpus import Corpus
from programs.errors import RagwrightError

Fate = Literal["splitter", "retriever", "reranker", "cutoff", "top_k", "retrieval", "generation", "answered", "failed"]
"""Where a question ended: at the first stage that lost some of its gold (`retrieval` where it is not known which), in
the LM, which had all of the gold, or with a right answer; `failed` has no answer."""

STAGES: tuple[Fate, ...] = ("splitter", "retriever", "reranker", "cutoff", "top_k", "retrieval", "generation")
"""What can lose a question, in the order in which it passes."""

RIGHT = 0.5
"""A score from here on counts as a right answer."""

GOLD = "gold_in_context"


@dataclass(frozen=True)
class Funnel:
    """What became of the questions that have evidence.

    Attributes:
        fates: Example id -> where it ended. Of a question that was answered rightly although some gold was lost, that
            is where the gold was lost.
        lucky: Questions of that kind.
        score_with: Mean score where all gold was handed over; None where that was never.
        score_without: Mean score where some was not; None where it always was.
        why_coarse: Why it is not known which stage of retrieval lost the gold; empty where it is.
        ranks: See `Followed`.
    """

    fates: Mapping[str, Fate]
    lucky: int
    score_with: float | None
    score_without: float | None
    why_coarse: str = ""
    ranks: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def lost(self) -> Mapping[Fate, int]:
        """Stage -> questions that it lost."""
        found = Counter(self.fates.values())
        return {stage: found[stage] for stage in STAGES}

    @property
    def asked(self) -> int:
        """Questions with evidence that have an answer."""
        return sum(fate != "failed" for fate in self.fates.values())


def funnel(
    rows: Mapping[str, Row],
    stages: Mapping[str, Fate],
    why_coarse: str = "",
    ranks: Mapping[str, int | None] = MappingProxyType({}),
) -> Funnel | None:
    """Follow the questions of an evaluation.

    Args:
        rows: Example id -> what happened to it.
        stages: Example id -> the stage of retrieval that lost some of its gold, as far as that is known.
        why_coarse: Why that is not known.
        ranks: See `Followed`.

    Returns:
        None where no question has evidence.
    """
    measured = {i: row for i, row in rows.items() if GOLD in row.measures}
    if not measured:
        return None
    fates: dict[str, Fate] = {i: _fate(row, stages.get(i, "retrieval")) for i, row in measured.items()}
    scored = [row for row in measured.values() if row.score is not None]
    whole = [row.score or 0.0 for row in scored if row.measures[GOLD] == 1]
    parted = [row.score or 0.0 for row in scored if row.measures[GOLD] < 1]
    lucky = sum(score >= RIGHT for score in parted)
    return Funnel(fates, lucky, _mean(whole), _mean(parted), why_coarse, ranks)


def _fate(row: Row, lost_by: Fate) -> Fate:
    if row.score is None:
        return "failed"
    if row.measures[GOLD] < 1:
        return lost_by
    return "answered" if row.score >= RIGHT else "generation"


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None


@dataclass(frozen=True)
class Followed:
    """What became of gold in retrieval.

    Attributes:
        lost: Example id -> the first stage that lost any of its facts.
        ranks: Example id, of those that the retriever lost -> rank in retrieval, from 1, of the last of those facts;
            None where one was not found at all.
        why_not: Why nothing can be said, or an empty text.
    """

    lost: Mapping[str, Fate]
    ranks: Mapping[str, int | None]
    why_not: str = ""


def lost_by(
    runs: Path, corpus: Corpus, config: PipelineConfig, program: str, examples: Sequence[Example]
) -> tuple[Mapping[str, Fate], str]:
    """Example id -> the first stage that lost any of its facts, and why nothing can be said; see `follow`."""
    followed = follow(runs, corpus, config, program, examples)
    return followed.lost, followed.why_not


def follow(runs: Path, corpus: Corpus, config: PipelineConfig, program: str, examples: Sequence[Example]) -> Followed:
    """Which stage of retrieval lost the gold of each question, without an LM call and without building anything.

    Args:
        runs: The folder that indexes are kept under.
        corpus: What is searched.
        config: The pipeline.
        program: Its name; only one that searches for the question as it was asked can be followed.
        examples: Questions; those without evidence are left out.
    """
    from optimize.screening.bench import RetrievalBench
    from optimize.screening.explain import STAGES as ORDER
    from optimize.screening.explain import explain

    with_evidence = [example for example in examples if example.evidence]
    try:
        if (why := _not_followed(runs, corpus, config, program)) or not with_evidence:
            return Followed({}, {}, why)
        bench = RetrievalBench(corpus, runs, with_evidence, (), max(config.retrieve_k, config.top_k))
        losses = explain(bench, with_evidence, config, 0).losses
    except RagwrightError as error:
        return Followed({}, {}, f"retrieval could not be followed: {error}")
    order = list(ORDER)
    lost: dict[str, Fate] = {}
    for loss in sorted(losses, key=lambda loss: order.index(loss.stage), reverse=True):
        lost[loss.example_id] = loss.stage
    late = [loss for loss in losses if loss.stage == lost[loss.example_id] == "retriever"]
    ranks: dict[str, int | None] = {}
    for loss in sorted(late, key=lambda loss: loss.rank or math.inf):
        ranks[loss.example_id] = loss.rank
    return Followed(lost, ranks)


def _not_followed(runs: Path, corpus: Corpus, config: PipelineConfig, program: str) -> str:
    from programs.chunking import chunking_settings
    from programs.prefix import NEEDS_LM as PREFIXES_WITH_LM
    from programs.reranking import NEEDS_LM as RERANKERS_WITH_LM

    if program != "rag":
        return f"the program {program} writes queries of its own, so its retrieval cannot be followed by the question"
    if config.reranker in RERANKERS_WITH_LM or config.context_prefix in PREFIXES_WITH_LM:
        return "a language model takes part in its retrieval, and a report makes no calls"
    folder = runs / "indexes" / fingerprint(chunking_settings(corpus, config))
    if not (folder / "meta.json").is_file():
        return "its index is no longer there, and a report builds none"
    return ""
