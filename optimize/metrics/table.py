"""Metrics of an answer behind one table: (example, prediction) -> score in [0, 1] with feedback, higher is better.

To add one, write a `Metric`, or a `JudgedMetric` where an LM grades, and enter it in `METRICS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.data.dataset import Dataset
from optimize.data.example import Example
from optimize.metrics.abstention import abstains as abstains
from optimize.metrics.abstention import normalize as normalize
from optimize.metrics.judges import JUDGES, JudgedMetric
from optimize.metrics.metric import NEEDS, Grade, Need, clamped
from optimize.metrics.metric import Metric as Metric
from optimize.metrics.metric import Score as Score
from optimize.metrics.overlap import bleu, chrf, exact_match, rouge1, rouge2, rouge_l, token_f1
from optimize.metrics.semantic import NAME as EMBEDDING
from optimize.metrics.semantic import embedding_similarity
from programs.catalogue import PROGRAMS, load_object, source_identity
from programs.errors import Problem, RagwrightError

if TYPE_CHECKING:
    import dspy

NAME_A_JUDGE = "name one, such as judge_lm: openai/gpt-4o-mini"

Spec = str | Mapping[str, float]
"""A metric as a study file names it: a name, `module:score`, or names with their weights."""

_UNJUDGED = (exact_match, token_f1, rouge1, rouge2, rouge_l, bleu, chrf, embedding_similarity())
METRICS: dict[str, Metric | JudgedMetric] = {**{metric.name: metric for metric in _UNJUDGED}, **JUDGES}
"""Name -> metric, or what makes it once the judge is known. `embedding_similarity:EMBEDDER` is possible, too."""


def load_metric(spec: Spec, judge: dspy.LM | None = None, *, cache: Path | None = None) -> Metric:
    """A metric by name, a person's own by `module:score`, or the weighted mean of several.

    A person's own function takes `(example, prediction)`, and `judge` where it asks the judge LM. It returns a number,
    a `Score`, or a DSPy prediction of `score` and `feedback`. Its attributes `needs` (by default known answers) and
    `judge_calls` (by default 1 where it takes a judge) say what it works from.

    Args:
        spec: What a study file says.
        judge: The LM that judges, for metrics that need one.
        cache: Where the vectors of `embedding_similarity:EMBEDDER` are kept; None keeps none.

    Raises:
        MissingExtraError: The library of an embedding model is not installed.
        RagwrightError: A name is unknown or cannot be imported, a weight is no weight, or there is no judge.
    """
    if isinstance(spec, str):
        return _judged(_find(spec, cache), judge)
    return _composite([(_judged(_find(name, cache), judge), weight) for name, weight in weights_of(spec).items()])


def weights_of(spec: Spec) -> dict[str, float]:
    """Name -> weight; the weights add up to 1.

    Raises:
        RagwrightError: There is no name, or a weight is not above 0.
    """
    if isinstance(spec, str):
        return {spec: 1.0}
    if not spec:
        raise RagwrightError("metric: names no metric; write one, or several with their weights.")
    for name, weight in spec.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise RagwrightError(f"metric: the weight of {name!r} is {weight!r}; it has to be a number above 0.")
    total = math.fsum(spec.values())
    return {name: weight / total for name, weight in spec.items()}


def metric_needs(spec: Spec) -> frozenset[Need]:
    """What the metrics of a spec work from, together; "judge" among them where a judge LM has to be opened.

    Raises:
        RagwrightError: As `load_metric`, but for the judge.
    """
    return frozenset[Need]().union(*(_find(name).needs for name in weights_of(spec)))


def judge_calls(spec: Spec) -> int:
    """Calls of the judge LM that one answer takes at most.

    Raises:
        RagwrightError: As `metric_needs`.
    """
    return sum(_find(name).judge_calls for name in weights_of(spec))


def metric_identity(spec: Spec) -> list[Any]:
    """What decides the scores, JSON-serializable, for fingerprints: not the judge, which has an identity of its own.

    Raises:
        RagwrightError: As `metric_needs`.
    """
    return [[name, weight, _identity(name)] for name, weight in weights_of(spec).items()]


def check_metrics(
    spec: Spec,
    dataset: Dataset | None,
    judge_named: bool,
    place: Callable[[str], str] = lambda name: f"metric: {name}",
) -> list[Problem]:
    """What keeps metrics from scoring, found before anything runs.

    Args:
        spec: What a study file says.
        dataset: The data; None where it could not be read.
        judge_named: Whether the study names a `judge_lm`.
        place: Metric name -> where it stands in the file.
    """
    try:
        names = list(weights_of(spec))
    except RagwrightError as error:
        return [Problem(place(""), _bare(error))]
    problems = []
    for name in names:
        try:
            needs = _find(name).needs
        except RagwrightError as error:
            problems.append(Problem(place(name), _bare(error)))
            continue
        for message, mend in _missing(name, needs, dataset, judge_named):
            problems.append(Problem(place(name), message, mend))
    return problems


def metric_notes(spec: Spec, program: str) -> list[str]:
    """What may go wrong and cannot be known before the first answer, in words."""
    own = [name for name in weights_of(spec) if program not in PROGRAMS and "context" in _find(name).needs]
    return [
        f"{name} reads the passages: {program}'s predictions must have 'passages', or every one fails." for name in own
    ]


def _missing(name: str, needs: Iterable[Need], dataset: Dataset | None, judge_named: bool) -> Iterable[tuple[str, str]]:
    """What a metric needs and does not get, with the mend."""
    if "judge" in needs and not judge_named:
        yield f"{name} is graded by an LM, and none is named", NAME_A_JUDGE
    if dataset is None:
        return
    if "answers" in needs and (count := dataset.unknown_answers):
        mend = "add them, or choose a metric that does not need them, such as groundedness"
        yield f"{name} needs known answers, and {count} questions of {dataset.name} have none", mend
    if "evidence" in needs and (count := sum(not example.evidence for example in dataset.examples)):
        yield f"{name} needs evidence, and {count} questions of {dataset.name} have none", "see `ragwright data locate`"


def _bare(error: RagwrightError) -> str:
    return str(error).removeprefix("metric: ").rstrip(".")


def _find(name: str, cache: Path | None = None) -> Metric | JudgedMetric:
    """What a name stands for, before its judge is known."""
    if name in METRICS:
        return METRICS[name]
    kind, _, embedder = name.partition(":")
    if kind == EMBEDDING:
        from programs.embedding import embedder_identity

        embedder_identity(embedder)
        return embedding_similarity(embedder, cache)
    return _own(name)


def _own(name: str) -> Metric | JudgedMetric:
    """A person's own function."""
    score = load_object(name, f"metric: {name!r} is neither one of {', '.join(METRICS)} nor module:score")
    if not callable(score):
        raise RagwrightError(f"metric: {name!r} is not callable; it must be score(example, prediction) -> float.")
    if isinstance(score, Metric | JudgedMetric):
        return score
    needs: frozenset[Need] = frozenset(getattr(score, "needs", ("answers",)))
    if unknown := sorted(needs - set(NEEDS)):
        raise RagwrightError(f"metric: {name!r} needs {unknown[0]!r}; choices: {', '.join(NEEDS)}.")
    if "judge" not in inspect.signature(score).parameters:
        return Metric(name, needs, score)

    def grade_by(judge: dspy.LM) -> Grade:
        return lambda example, prediction: score(example, prediction, judge=judge)

    return JudgedMetric(name, needs | {"judge"}, grade_by, getattr(score, "judge_calls", 1), "")


def _judged(metric: Metric | JudgedMetric, judge: dspy.LM | None) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if judge is None:
        raise RagwrightError(f"metric: {metric.name} is graded by an LM, and none is named; {NAME_A_JUDGE}.")
    return metric.by(judge)


def _identity(name: str) -> str:
    """What decides one metric's scores, beside its weight and the judge."""
    if name in METRICS:
        metric = METRICS[name]
        return f"{metric.library} {version(metric.library)}" if isinstance(metric, JudgedMetric) else ""
    if name.startswith(f"{EMBEDDING}:"):
        from programs.embedding import embedder_identity

        return embedder_identity(name.removeprefix(f"{EMBEDDING}:"))
    return source_identity(name)


def _composite(parts: Sequence[tuple[Metric, float]]) -> Metric:
    """The weighted mean of several metrics; where one of them fails, all of it fails.

    Args:
        parts: Metrics with their weights, which add up to 1.
    """
    if len(parts) == 1:
        return parts[0][0]
    # What costs nothing first: where it fails, no judge is asked.
    parts = sorted(parts, key=lambda part: part[0].judge_calls)

    def grade(example: Example, prediction: dspy.Prediction) -> Score:
        scores = [(metric.name, weight, metric(example, prediction)) for metric, weight in parts]
        lost = [
            f"{name} (weight {weight:.2g}) {score:.2f}: {score.feedback}" for name, weight, score in scores if score < 1
        ]
        return Score(clamped(math.fsum(weight * score for _, weight, score in scores)), "; ".join(lost))

    name = " + ".join(f"{weight:.3g} {metric.name}" for metric, weight in parts)
    needs = frozenset[Need]().union(*(metric.needs for metric, _ in parts))
    return Metric(name, needs, grade, sum(metric.judge_calls for metric, _ in parts))
