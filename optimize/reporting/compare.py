"""Several finished studies beside each other: what may be compared, and how their winners differ on the same questions.

Scores of different data sets, states of a data set or metrics are never subtracted from each other: such studies stand
side by side, with the reason why no more is said.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.data.dataset import load_dataset
from optimize.evaluation.outcome import Outcome
from optimize.inference.statistics import PairedDifference, Verdict, judge
from optimize.reporting.compare_difference import difference_between, holm
from optimize.reporting.compare_settings import differing
from optimize.reporting.record import Record
from optimize.runs.finished import read_outcome
from optimize.runs.run_dir import RunDir
from optimize.settings.study import load_study
from programs.errors import RagwrightError


@dataclass(frozen=True)
class Studied:
    """One of the studies.

    Attributes:
        label: A name that no other has.
        run: Its folder.
        outcome: What it found.
        record: The same with its questions; None where the data set is no longer there as it was.
    """

    label: str
    run: RunDir
    outcome: Outcome
    record: Record | None

    @property
    def scored_on(self) -> tuple[str, str, str]:
        """What two studies must have in common for their test scores to be comparable: data, its state, metric."""
        o = self.outcome
        return o.dataset, o.dataset_fingerprint, o.metric

    @property
    def is_tested(self) -> bool:
        """Whether its winner was asked the test questions."""
        return self.outcome.test_winner is not None


@dataclass(frozen=True)
class Between:
    """One study's winner against another's on the test questions; see `difference_between`.

    Attributes:
        one: Label of the study that is compared with.
        other: Label of the study that is compared.
        difference: Other minus one.
        verdict: In words, of the other.
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
    for one in studies:
        if not one.is_tested:
            obstacles.append(f"{one.label} has no winner that was tested, so there is no test score to compare.")
    for alike in _alike(studies):
        found, problem = _between(alike)
        between += found
        obstacles += [problem] if problem else []
    return Comparison(studies, tuple(between), tuple(obstacles))


def _studies(runs: Sequence[RunDir]) -> list[Studied]:
    outcomes = [read_outcome(run) for run in runs]
    names = Counter(outcome.study for outcome in outcomes)
    fingerprints = Counter((outcome.study, outcome.fingerprint) for outcome in outcomes)

    def label(run: RunDir, o: Outcome) -> str:
        if names[o.study] == 1:
            return o.study
        own = f"{o.study}-{o.fingerprint[:6]}"
        # The same study in two folders: another machine, or another language model's answers.
        return own if fingerprints[o.study, o.fingerprint] == 1 else f"{own} in {run.path.resolve().parent.name}"

    return [Studied(label(run, o), run, o, _record(run, o)) for run, o in zip(runs, outcomes, strict=True)]


def _record(run: RunDir, outcome: Outcome) -> Record | None:
    """With the data set, if it is still there in the state that the study saw."""
    try:
        dataset = load_dataset(Path(load_study(run.path / "study.yaml").dataset))
    except RagwrightError:
        return None
    return Record(outcome, run, dataset) if dataset.fingerprint == outcome.dataset_fingerprint else None


def _apart(studies: Sequence[Studied]) -> list[str]:
    """What keeps the studies as a whole from being compared."""
    said = []
    for name, of in _ASPECTS:
        values = dict.fromkeys(of(one.outcome) for one in studies)
        if len(values) > 1:
            said.append(f"They have different {name} ({', '.join(values)}): {_WHY[name]}.")
            break
    return said


_ASPECTS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("data sets", lambda o: o.dataset),
    ("states of the data set", lambda o: o.dataset_fingerprint),
    ("metrics", lambda o: o.metric),
)

_WHY = {
    "data sets": "a test score says how hard the questions are as much as how good the program is, so scores of "
    "different questions are not compared",
    "states of the data set": "questions or documents were changed in between, so the scores are of different tests",
    "metrics": "their scores are not the same thing",
}


def _alike(studies: Sequence[Studied]) -> list[list[Studied]]:
    """Tested studies in sets that were scored on the same."""
    found: dict[tuple[str, str, str], list[Studied]] = {}
    for one in studies:
        if one.is_tested:
            found.setdefault(one.scored_on, []).append(one)
    return [alike for alike in found.values() if len(alike) > 1]


def _between(studies: Sequence[Studied]) -> tuple[list[Between], str]:
    """All others against the first; or why they are not compared."""
    record = next((one.record for one in studies if one.record is not None), None)
    if record is None:
        names = ", ".join(one.label for one in studies)
        return [], (
            f"The data set of {names} is no longer there as it was, so it is not known which questions belong "
            "together, and no interval of a difference can be given."
        )
    first, *others = (_test_scores(one) for one in studies)
    if not first or not all(others):
        return [], "The answers to the test questions are no longer in the run folders."
    gaps = [difference_between(first, other, record.groups) for other in others]
    adjusted = holm([gap.p_value for gap in gaps])
    found = [
        Between(
            studies[0].label,
            other.label,
            gap,
            judge(gap, record.study.smallest_effect),
            p,
            len(first.keys() & scores.keys()),
        )
        for other, scores, gap, p in zip(studies[1:], others, gaps, adjusted, strict=True)
    ]
    return found, ""


def _test_scores(one: Studied) -> dict[str, float]:
    assert one.outcome.test_winner is not None, "only tested ones are compared"
    evaluation = one.run.read_evaluation(one.outcome.test_winner.unit)
    return {} if evaluation is None else evaluation.scores


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What was found, for machines; what is not known is null."""
    return {
        "comparable": comparison.is_whole,
        "why_not": list(comparison.obstacles),
        "studies": [_study_json(one) for one in comparison.studies],
        "differences": [
            {"study": b.other, "minus": b.one, "verdict": b.verdict, **_plain(b.difference), "shared": b.shared}
            | {"p_adjusted": b.p_adjusted}
            for b in comparison.between
        ],
        "settings": {
            name: list(values) for name, values in differing([_params(s) for s in comparison.studies]).items()
        },
    }


def _params(one: Studied) -> dict[str, Any]:
    return chosen(one.outcome).params


def chosen(outcome: Outcome) -> Any:
    """The entry that a study ends with: its winner, else the baseline that it kept or has."""
    return outcome.test_winner or outcome.winner or outcome.baseline


def _study_json(one: Studied) -> dict[str, Any]:
    o = one.outcome
    scores = {"baseline": o.test_baseline, "winner": o.test_winner}
    return {
        "study": one.label,
        "run": str(one.run.path),
        "dataset": o.dataset,
        "dataset_fingerprint": o.dataset_fingerprint,
        "metric": o.metric,
        "lm": o.lm,
        "verdict": o.verdict,
        "test": {name: _plain_summary(entry) for name, entry in scores.items() if entry is not None},
        "difference": None if o.difference is None else _plain(o.difference),
        "trials": len(o.trials),
        "lm_calls": o.spent.calls,
        "usd": o.spent.usd,
        "seconds": o.spent.seconds,
    }


def _plain_summary(entry: Any) -> dict[str, Any]:
    s = entry.summary
    return {name: _finite(getattr(s, name)) for name in ("score", "stderr", "low", "high", "n")}


def _plain(d: PairedDifference) -> dict[str, Any]:
    names = ("mean", "low", "high", "p_value", "n", "clusters")
    return {name: _finite(getattr(d, name)) for name in names}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
