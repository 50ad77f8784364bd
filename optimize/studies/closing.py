"""The end of a study that carries a verdict: its confirm phase, its test, and what came of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from optimize.evaluation.outcome import Entry, Outcome, summarize
from optimize.runs.openings import count_opening
from optimize.searching.decision import Rules, confirm, guarded, open_test, unit_of
from optimize.searching.point import Point
from optimize.searching.search import Search
from optimize.settings.study import StudyConfig
from optimize.studies.telling import Teller
from optimize.studies.workbench import Workbench


@dataclass(frozen=True)
class Closing:
    """Confirms, chooses and tests.

    Attributes:
        bench: Answers questions.
        search: Finished.
        baseline: As the search asked it.
        fingerprint: The study's.
        teller: Is told of every evaluation.
        warn: Is told what a person should know.
    """

    bench: Workbench
    search: Search
    baseline: Point
    fingerprint: str
    teller: Teller
    warn: Callable[[str], None]

    def close(self, outcome: Outcome) -> Outcome:
        """The outcome of the search, completed by finalists, winner, difference and verdict."""
        allocation, rules = self.bench.allocation, _rules(self.bench.study)
        examples = {"search": allocation.search, "confirm": allocation.confirm}
        self.bench.progress.phase(
            "confirm", f"the best few and the baseline on {len(allocation.confirm)} new questions"
        )
        found = confirm(self.bench, self.search, self.baseline, examples, allocation.groups, rules)
        entries = [
            self.teller.finished(unit_of("confirm", point), "confirm", point, rows)
            for point, rows in zip(found.contenders, found.evaluations, strict=True)
        ]
        if found.choice is not None:
            believed = zip(entries, found.choice.estimates, strict=True)
            entries = [replace(entry, estimate=mean, spread=spread) for entry, (mean, spread) in believed]
        outcome = replace(outcome, finalists=tuple(entries))
        if found.choice is None or found.chosen is None:
            self.warn("too much failed: no trial answered enough of its questions, so there is no winner.")
            return outcome
        outcome = replace(outcome, choice=found.choice.why)
        if found.chosen is self.baseline:
            # One that answers nothing is no fair opponent, and nothing is shown by its being kept.
            return replace(outcome, verdict="not shown better" if entries[0].summary.answers else None)
        return self._test(replace(outcome, winner=entries[found.choice.place]), found.chosen, rules)

    def _test(self, outcome: Outcome, winner: Point, rules: Rules) -> Outcome:
        """The one look at the test split: the winner and the baseline, on the same questions."""
        examples, groups = self.bench.allocation.test, self.bench.allocation.groups
        look = f"{self.fingerprint}/{winner.config.fingerprint()}-{winner.candidate}"
        openings = count_opening(self.bench.runs, self.bench.dataset.fingerprint, look)
        self.bench.progress.phase("test", f"the winner and the baseline on {len(examples)} questions never tuned on")
        tested = open_test(
            self.bench, self.baseline, winner, examples, groups, rules, lambda rows: summarize(rows, groups).answers
        )
        base = self.teller.finished(unit_of("test", self.baseline), "test", self.baseline, tested.baseline)
        new = self.teller.finished(unit_of("test", winner), "test", winner, tested.winner)
        if (why := void(base)) is not None:
            self.warn(why)
        if (lost := len(examples) - tested.difference.n) > 0:
            self.warn(f"{lost} test questions failed on one side and are left out.")
        guards = guarded(tested.baseline, tested.winner, groups, rules)
        for guard in guards:
            if guard.state == "fell":
                self.warn(
                    f"{guard.metric} fell by {-guard.difference.mean:.3f}, more than the {guard.allowed:g} allowed."
                )
        return replace(
            outcome,
            test_baseline=base,
            test_winner=new,
            difference=tested.difference,
            verdict=tested.verdict,
            guards=tuple(guards),
            test_openings=openings,
        )


def void(baseline: Entry) -> str | None:
    """Why a comparison with a baseline that was asked something says nothing; None where it is a fair opponent."""
    s = baseline.summary
    if s.answers:
        return None
    return (
        f"the baseline failed on {s.failures} and answered {s.empty_answers} of {s.n} questions with nothing: "
        "a comparison with it is void. Give the study a baseline that answers, such as another prompt_format."
    )


def _rules(study: StudyConfig) -> Rules:
    cost = study.minimize[0] if study.minimize else "prompt_tokens"
    return Rules(study.finalists, study.tolerance, study.smallest_effect, cost, study.guards)
