"""From a finished search to a verdict: confirm, choose, test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.outcome import Guard
from optimize.inference.statistics import PairedDifference, Verdict, fell, judge, paired_difference
from optimize.searching.confirm import Choice, choose, mean_cost
from optimize.searching.point import Bench, Point
from optimize.searching.search import Search


@dataclass(frozen=True)
class Rules:
    """What a study says about choosing.

    Attributes:
        finalists: Most points that reach confirm, the baseline not counted.
        tolerance: What a cheaper one may lose.
        smallest_effect: The smallest difference that matters.
        cost: What cheap means: a numeric attribute of a row.
        guards: Metric -> by how much it may fall.
    """

    finalists: int
    tolerance: float
    smallest_effect: float
    cost: str = "prompt_tokens"
    guards: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Confirmed:
    """The contenders on questions that the search has not seen.

    Attributes:
        contenders: The baseline, then the finalists.
        evaluations: Their answers.
        choice: Which of them was chosen; None where no trial, or no finalist, answered enough.
    """

    contenders: tuple[Point, ...]
    evaluations: tuple[Evaluation, ...]
    choice: Choice | None

    @property
    def chosen(self) -> Point | None:
        """The point that was chosen, be it the baseline."""
        return None if self.choice is None else self.contenders[self.choice.place]


@dataclass(frozen=True)
class Tested:
    """The chosen point and the baseline on questions that nothing was tuned on.

    Attributes:
        baseline: Its answers.
        winner: The chosen one's.
        difference: Winner minus baseline, on the questions that both answered.
        verdict: In words; None where too much failed for a comparison.
    """

    baseline: Evaluation
    winner: Evaluation
    difference: PairedDifference
    verdict: Verdict | None


def confirm(
    bench: Bench,
    search: Search,
    baseline: Point,
    examples: Mapping[str, Sequence[Example]],
    groups: Mapping[str, str],
    rules: Rules,
) -> Confirmed:
    """Ask the best few and the baseline the confirm questions, and choose.

    Args:
        bench: Answers questions.
        search: Finished.
        baseline: As the search asked it.
        examples: The `search` and the `confirm` questions.
        groups: Example id -> group of dependent questions.
        rules: How to choose. A finalist that is shown to fail a guard is not chosen.
    """
    contenders = [baseline, *search.finalists(rules.finalists)]
    if len(contenders) == 1:
        return Confirmed((), (), None)
    found = [
        bench.ask(unit_of("confirm", point), "confirm", point.config, point.candidate, examples["confirm"])
        for point in contenders
    ]
    valid = [
        place
        for place, rows in enumerate(found)
        if rows.valid and not any(guard.state == "fell" for guard in guarded(found[0], rows, groups, rules))
    ]
    if valid in ([], [0]):
        return Confirmed(tuple(contenders), tuple(found), None)
    choice = choose(
        bench,
        [baseline, *search.trials],
        [contenders[place] for place in valid],
        [found[place] for place in valid],
        examples,
        [mean_cost(found[place], rules.cost) for place in valid],
        rules.tolerance,
    )
    every = dict(zip(valid, choice.estimates, strict=True))
    nothing = (float("nan"), float("nan"))
    estimates = tuple(every.get(place, nothing) for place in range(len(contenders)))
    return Confirmed(tuple(contenders), tuple(found), Choice(valid[choice.place], estimates, choice.why))


def open_test(
    bench: Bench,
    baseline: Point,
    winner: Point,
    examples: Sequence[Example],
    groups: Mapping[str, str],
    rules: Rules,
    answers: Callable[[Evaluation], bool] = lambda evaluation: evaluation.valid,
) -> Tested:
    """Open the test: the winner and the baseline, once, on the same questions.

    Args:
        bench: Answers questions.
        baseline: The setting to beat.
        winner: What confirm chose, another point than the baseline.
        examples: The test questions.
        groups: Example id -> group of dependent questions.
        rules: What difference matters.
        answers: Whether the baseline answers enough to be a fair opponent.
    """
    base, new = (
        bench.ask(unit_of("test", point), "test", point.config, point.candidate, examples)
        for point in (baseline, winner)
    )
    old, scores = base.scores, new.scores
    both = [example_id for example_id in old if example_id in scores]
    difference = paired_difference([scores[i] - old[i] for i in both], [groups[i] for i in both])
    void = not answers(base) or not new.valid
    return Tested(base, new, difference, None if void else judge(difference, rules.smallest_effect))


def guarded(baseline: Evaluation, other: Evaluation, groups: Mapping[str, str], rules: Rules) -> list[Guard]:
    """How each guarded metric fares, on the questions where both have it."""
    found = []
    for name, allowed in rules.guards.items():
        old, new = baseline.also(name), other.also(name)
        both = [example_id for example_id in old if example_id in new]
        gaps, clusters = [new[i] - old[i] for i in both], [groups[i] for i in both]
        if both:
            found.append(Guard(name, allowed, paired_difference(gaps, clusters), fell(gaps, clusters, allowed)))
    return found


def unit_of(phase: str, point: Point) -> str:
    """The name of a point's evaluation in a later phase: by what it is, not by when it was tried."""
    return f"{phase}-{point.config.fingerprint()}-{point.candidate}"
