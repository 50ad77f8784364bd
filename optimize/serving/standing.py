"""Whether an export still scores what its study measured, as far as the numbers can tell."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from optimize.evaluation.outcome import Summary
from optimize.evaluation.rows import Evaluation, Row
from optimize.inference.statistics import CONFIDENCE, paired_difference

Standing = Literal["same", "risen", "fallen", "no change shown"]

PHASES = {"test": "test", "validation": "confirm"}
"""Split -> the phase of a study whose scores of the winner are compared with. Search scores of a winner are the best of
many and too high; nothing of a study is measured on `train`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an export scores now against what its study measured.

    Attributes:
        phase: Of the study.
        before: The study's mean over the questions that are compared.
        now: The mean over them now.
        n: How many questions are compared; of unpaired means, those scored now.
        paired: Whether question by question. Where the study's rows are not at hand two means are compared as if they
            were of different questions, which finds less.
        difference: Now minus before.
        low: Lower end of its two-sided 95 % interval.
        high: Upper end.
        p_value: Of the permutation test, where paired.
    """

    phase: str
    before: float
    now: float
    n: int
    paired: bool
    difference: float
    low: float
    high: float
    p_value: float | None = None

    @property
    def standing(self) -> Standing:
        """The verdict: a change needs the interval and, where there is one, the permutation test."""
        if self.low == self.high == 0:
            return "same"
        shown = self.p_value is None or self.p_value <= 1 - CONFIDENCE
        if self.high < 0 and shown:
            return "fallen"
        return "risen" if self.low > 0 and shown else "no change shown"

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        how = "question by question" if self.paired else "the study's rows are not at hand, so mean against mean"
        head = {
            "same": "The same: every question scores what it did",
            "risen": "Risen",
            "fallen": "Fallen",
            "no change shown": "No change shown",
        }[self.standing]
        numbers = f"{self.now:.3f} now, {self.before:.3f} in the study's {self.phase} phase, on {self.n} questions"
        if self.standing == "same":
            return f"{head} ({numbers})."
        interval = f"a difference of {self.difference:+.3f} (95 % interval {self.low:+.3f} to {self.high:+.3f}, {how})"
        return f"{head}: {numbers}, {interval}."

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "standing": self.standing, "sentence": self.sentence}


def compare(
    folder: Path,
    manifest: Mapping[str, Any],
    split: str,
    rows: Evaluation,
    summary: Summary,
    clusters: Mapping[str, Hashable],
) -> Comparison | None:
    """Compare an evaluation with the study's own of the same split; None where there is none to compare with.

    Args:
        folder: The export. Where it still lies in its study's folder, the rows of the study are there, too.
        manifest: The export's.
        split: What was evaluated.
        rows: What came of it.
        summary: The same in numbers.
        clusters: Example id -> group of dependent questions.
    """
    phase = PHASES.get(split)
    if phase is None or math.isnan(summary.score):
        return None
    old = _recorded(folder, manifest, phase)
    new = rows.scores
    both = [example for example in new if example in old]
    if both:
        return _paired(phase, [old[i] for i in both], [new[i] for i in both], [clusters[i] for i in both])
    winner = ((manifest.get("scores") or {}).get(phase) or {}).get("winner") or {}
    return _unpaired(phase, winner, summary) if "score" in winner else None


def _recorded(folder: Path, manifest: Mapping[str, Any], phase: str) -> dict[str, float]:
    """Example id -> score of the winner in a phase, from the study's folder around the export; empty without one."""
    unit = f"{phase}-{manifest.get('configuration')}-{manifest.get('candidate')}.jsonl"
    file = folder.resolve().parent / "evaluations" / unit
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").split("\n")
    return Evaluation(tuple(Row.from_json(json.loads(line)) for line in lines if line)).scores


def _paired(phase: str, old: list[float], new: list[float], clusters: list[Hashable]) -> Comparison:
    differences = [now - before for before, now in zip(old, new, strict=True)]
    means = (math.fsum(old) / len(old), math.fsum(new) / len(new), len(new))
    if not any(differences):
        return Comparison(phase, *means, True, 0.0, 0.0, 0.0, 1.0)
    found = paired_difference(differences, clusters)
    return Comparison(phase, *means, True, found.mean, found.low, found.high, found.p_value)


def _unpaired(phase: str, winner: Mapping[str, Any], summary: Summary) -> Comparison:
    """Both means carry their errors. The questions are mostly the same, so that the true interval is narrower."""
    difference = summary.score - float(winner["score"])
    errors = [float(winner.get("stderr", math.nan)), summary.stderr]
    half = math.inf if any(map(math.isnan, errors)) else 1.96 * math.hypot(*errors)
    return Comparison(
        phase,
        float(winner["score"]),
        summary.score,
        summary.n - summary.failures,
        False,
        difference,
        difference - half,
        difference + half,
    )
