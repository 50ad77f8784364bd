"""Several finished studies beside each other: what may be compared, and how their winners differ on the same questions.

Scores of different data sets, states of a data set or metrics are never subtracted from each other: such studies stand
side by side, with the reason why no more is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from optimize.evaluation.outcome import Entry, Outcome
from optimize.inference.statistics import PairedDifference, Verdict, judge
from optimize.reporting.compare_difference import difference_between, holm
from optimize.reporting.headline import finite
from optimize.reporting.record import Record, read_record
from optimize.reporting.settings import differing
from optimize.runs.run_dir import RunDir
from programs.errors import RagwrightError


@dataclass(frozen=True)
class Studied:
    """One of the studies.

    Attributes:
        label: A name that no other has.
        record: What it found, and its questions where they are still there.
    """

    label: str
    record: Record

    @property
    def outcome(self) -> Outcome:
        """What it found."""
        return self.record.outcome

    @property
    def scored_on(self) -> tuple[str, str, str]:
        """What two studies must have in common for their test scores to be comparable: data, its state, metric."""
        o = self.outcome
        return o.dataset, o.dataset_fingerprint, o.metric

    @property
    def tested(self) -> Entry | None:
        """Its winner on the test questions; None where it was asked none, or failed on too many."""
        winner = self.outcome.test_winner
        return winner if winner is not None and winner.summary.valid else None

    @property
    def chosen(self) -> Entry:
        """What it ends with: its winner, else the baseline that it kept or has."""
        return self.outcome.test_winner or self.outcome.winner or self.outcome.baseline


@dataclass(frozen=True)
class Between:
    """One study's winner against another's on the test questions; see `difference_between`.

    Attributes:
        one: Label of the study that is compared with.
        other: Label of the study that is compared.
        difference: Other minus one.
        verdict: In words, of the other, by the adjusted p.
        p_adjusted: Its p, with regard to how many are compared with that one.
        shared: Questions that both were asked.
    """

    one: str
    other: str
    difference: PairedDifference
    verdict: Verdict
    p_adjusted: float
    shared: int


@dataclass(frozen=True)
class Comparison:
    """Several studies.

    Attributes:
        studies: In the order in which they were named.
        between: Winner against winner: in each set of comparable studies all others against the first.
        obstacles: Why some are not compared, a sentence each.
    """

    studies: tuple[Studied, ...]
    between: tuple[Between, ...]
    obstacles: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all of them could be compared."""
        return not self.obstacles


def compare(runs: Sequence[RunDir]) -> Comparison:
    """Read studies and compare what may be compared.

    Raises:
        RagwrightError: Fewer than two studies, or one of them twice.
    """
    places = [run.path.resolve() for run in runs]
    if len(places) < 2:
        raise RagwrightError("compare needs two studies or more; `ragwright runs` lists them.")
    if twice := [place.name for place, count in Counter(places).items() if count > 1]:
        raise RagwrightError(f"{twice[0]} is named twice.")
    studies = tuple(_studies(runs))
    between: list[Between] = []
    obstacles = list(_apart(studies))
    untested = "has no winner that was tested and answered enough, so there is no test score to compare."
    obstacles += [f"{one.label} {untested}" for one in studies if not one.tested]
    for alike in _alike(studies):
        found, problem = _between(alike)
        between += found
        obstacles += [problem] if problem else []
    return Comparison(studies, tuple(between), tuple(obstacles))


def _studies(runs: Sequence[RunDir]) -> list[Studied]:
    records = [read_record(run) for run in runs]
    outcomes = [record.outcome for record in records]
    names = Counter(outcome.study for outcome in outcomes)
    fingerprints = Counter((outcome.study, outcome.fingerprint) for outcome in outcomes)

    def label(run: RunDir, o: Outcome) -> str:
        if names[o.study] == 1:
            return o.study
        own = f"{o.study}-{o.fingerprint[:6]}"
        # The same study in two folders: another machine, or another language model's answers.
        return own if fingerprints[o.study, o.fingerprint] == 1 else f"{own} in {run.path.resolve().parent.name}"

    return [Studied(label(record.run, record.outcome), record) for record in records]


_ASPECTS: tuple[tuple[str, Callable[[Outcome], str], str], ...] = (
    (
        "data sets",
        lambda o: o.dataset,
        "a test score says how hard the questions are as much as how good the program is, so scores of different "
        "questions are not compared",
    ),
    (
        "states of the data set",
        lambda o: o.dataset_fingerprint,
        "questions or documents were changed in between, so the scores are of different tests",
    ),
    ("metrics", lambda o: o.metric, "their scores are not the same thing"),
)
"""What studies must have in common to be compared, and why."""


def _apart(studies: Sequence[Studied]) -> list[str]:
    """The first thing that keeps the studies as a whole from being compared."""
    for name, of, why in _ASPECTS:
        values = dict.fromkeys(of(one.outcome) for one in studies)
        if len(values) > 1:
            return [f"They have different {name} ({', '.join(values)}): {why}."]
    return []


def _alike(studies: Sequence[Studied]) -> list[list[Studied]]:
    """Tested studies in sets that were scored on the same."""
    found: dict[tuple[str, str, str], list[Studied]] = {}
    for one in studies:
        if one.tested:
            found.setdefault(one.scored_on, []).append(one)
    return [alike for alike in found.values() if len(alike) > 1]


def _between(studies: Sequence[Studied]) -> tuple[list[Between], str]:
    """All others against the first; or why they are not compared."""
    record = next((one.record for one in studies if one.record.dataset is not None), None)
    if record is None:
        names = ", ".join(one.label for one in studies)
        return [], (
            f"The data set of {names} is no longer there as it was, so it is not known which questions belong "
            "together, and no interval of a difference can be given."
        )
    first, *others = (one.record.scores(one.tested) if one.tested else {} for one in studies)
    if not first or not all(others):
        return [], "The answers to the test questions are no longer in the run folders."
    gaps = [difference_between(first, other, record.groups) for other in others]
    found = []
    for other, scores, gap, p in zip(studies[1:], others, gaps, holm([gap.p_value for gap in gaps]), strict=True):
        # Of several comparisons one is found by chance more easily: each is judged by the p that knows of the others.
        verdict = judge(replace(gap, p_value=p), record.study.smallest_effect)
        found.append(Between(studies[0].label, other.label, gap, verdict, p, len(first.keys() & scores.keys())))
    return found, ""


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What was found, for machines; what is not known is null."""
    settings = differing([one.chosen.params for one in comparison.studies])
    content = {
        "comparable": comparison.is_whole,
        "why_not": comparison.obstacles,
        "studies": [_study_json(one) for one in comparison.studies],
        "differences": [
            {"study": b.other, "minus": b.one, "verdict": b.verdict, **asdict(b.difference), "shared": b.shared}
            | {"p_adjusted": b.p_adjusted}
            for b in comparison.between
        ],
        "settings": settings,
    }
    return dict(finite(content))


def _study_json(one: Studied) -> dict[str, Any]:
    o = one.outcome
    scores = {"baseline": o.test_baseline, "winner": o.test_winner}
    names = ("score", "stderr", "low", "high", "n")
    return {
        "study": one.label,
        "run": str(one.record.run.path),
        "dataset": o.dataset,
        "dataset_fingerprint": o.dataset_fingerprint,
        "metric": o.metric,
        "lm": o.lm,
        "verdict": o.verdict,
        "test": {kind: {n: getattr(entry.summary, n) for n in names} for kind, entry in scores.items() if entry},
        "difference": o.difference and asdict(o.difference),
        "trials": len(o.trials),
        "lm_calls": o.spent.calls,
        "usd": o.spent.usd,
        "seconds": o.spent.seconds,
    }
