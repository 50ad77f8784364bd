"""How many examples each phase of a study gets: the verdict first, the search with what is left."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optimize.data.dataset import Dataset
from optimize.data.example import Example
from optimize.data.splits import balanced_order, group_examples, split_examples
from optimize.settings.study import StudyConfig
from optimize.studies.budget import Budget

TEST_SHARE, CONFIRM_SHARE, SEARCH_SHARE = 0.35, 0.2, 0.45
PLANNED_TRIALS = 8
"""Whole evaluations that a search is laid out for, the baseline's among them. Most points are asked a part of the
questions only, so more questions, and not more trials, are what a larger budget buys."""

LEAST_EVALUATIONS = 4
"""What has to fit beside a verdict, or there is nothing to give one on: the baseline and three trials."""

LEAST_EXAMPLES = 4
"""Fewest examples of a phase, where there are as many."""


@dataclass(frozen=True)
class Allocation:
    """Which examples each phase works on, in the order in which they are looked at.

    Attributes:
        train: Demos come from here.
        search: Every trial is scored on these.
        confirm: The finalists are scored on these; none where the budget carries no verdict.
        test: The verdict is about these; none where the budget carries none.
        calls_per_question: LM calls that one answer and its scoring take.
        finalists: Configurations that reach the confirm phase, the baseline not counted.
        groups: Example id -> group of dependent questions.
        why_not: Why there will be no verdict, or None.
    """

    train: tuple[Example, ...]
    search: tuple[Example, ...]
    confirm: tuple[Example, ...]
    test: tuple[Example, ...]
    calls_per_question: int
    finalists: int
    groups: dict[str, str]
    why_not: str | None = None

    @property
    def verdict_possible(self) -> bool:
        """Whether the budget carries a verdict, as far as is known."""
        return self.why_not is None

    @property
    def confirm_questions(self) -> int:
        """Answers that the confirm phase takes."""
        return len(self.confirm) * (self.finalists + 1)

    @property
    def test_questions(self) -> int:
        """Answers that the test takes: the winner's and the baseline's."""
        return len(self.test) * 2

    @property
    def confirm_calls(self) -> int:
        """Calls that the confirm phase takes."""
        return self.calls_per_question * self.confirm_questions

    @property
    def test_calls(self) -> int:
        """Calls that the test takes."""
        return self.calls_per_question * self.test_questions

    @property
    def trial_calls(self) -> int:
        """Calls that one trial takes."""
        return self.calls_per_question * len(self.search)

    @property
    def reserved_calls(self) -> int:
        """Calls kept for the verdict."""
        return self.confirm_calls + self.test_calls

    def without_verdict(self, reason: str) -> Allocation:
        """The same search, and nothing kept for a verdict."""
        return replace(self, confirm=(), test=(), why_not=reason)

    def ids(self) -> dict[str, list[str]]:
        """Example ids by phase."""
        return {name: [e.id for e in getattr(self, name)] for name in ("train", "search", "confirm", "test")}


def allocate(
    study: StudyConfig,
    dataset: Dataset,
    calls_per_question: int,
    kept: Mapping[str, Sequence[str]] | None = None,
) -> Allocation:
    """Lay out the calls: the verdict first, the search with what is left; where that is too little, a search alone.

    Args:
        study: The study file.
        dataset: The data.
        calls_per_question: LM calls that one answer and its scoring take.
        kept: `Allocation.ids` of the study's first process. They hold for all later ones, whatever their budget; a
            verdict that the first one could not afford is laid out now, on examples that no search has seen.
    """
    documents = {document.id: document for document in dataset.corpus.documents}
    groups = group_examples(dataset.examples, documents)
    parts = split_examples(dataset.validation, documents, study.seed, {"search": 0.6, "confirm": 0.4}, groups=groups)
    pools = {"train": dataset.train, "search": parts["search"], "confirm": parts["confirm"], "test": dataset.test}
    order = {name: balanced_order(pool, groups, study.seed) for name, pool in pools.items()}
    by_id = {example.id: example for example in dataset.examples}
    wishes, others = study.examples, study.finalists + 1
    affordable = study.budget.lm_calls // calls_per_question

    def first(name: str, count: int) -> tuple[Example, ...]:
        return tuple(by_id[i] for i in kept[name]) if kept and kept[name] else tuple(order[name][:count])

    def size(wish: int | None, share: float, most: int = sys.maxsize) -> int:
        return wish if wish is not None else max(LEAST_EXAMPLES, min(int(share * affordable), most))

    train = order["train"][: wishes.train] if kept is None else [by_id[i] for i in kept["train"]]
    search = first("search", size(wishes.search, SEARCH_SHARE / PLANNED_TRIALS))
    confirm = first("confirm", size(wishes.confirm, CONFIRM_SHARE / others))
    left = affordable - LEAST_EVALUATIONS * len(search) - others * len(confirm)
    test = first("test", size(wishes.test, TEST_SHARE / 2, left // 2))
    laid_out = Allocation(tuple(train), search, confirm, test, calls_per_question, study.finalists, groups)
    needed = laid_out.reserved_calls + LEAST_EVALUATIONS * laid_out.trial_calls
    if needed <= study.budget.lm_calls:
        return laid_out
    # A wish that leaves no room for a single trial beside the baseline would end with nothing at all.
    room = max(LEAST_EXAMPLES, affordable // 2)
    alone = first("search", min(size(wishes.search, 1.0 / PLANNED_TRIALS), room))
    reason = (
        f"{study.budget.lm_calls} LM calls carry no verdict: it takes {needed - study.budget.lm_calls} more "
        f"(budget.lm_calls: {needed}), or fewer examples"
    )
    return replace(laid_out, search=alone).without_verdict(reason)


def reserve_check(
    allocation: Allocation, budget: Budget, seconds_a_question: float = 0.0, seconds_left: float = math.inf
) -> str | None:
    """Why the verdict cannot be afforded after all, seen when the baseline has shown what a call takes; else None.

    Args:
        allocation: What was laid out by the number of calls alone.
        budget: With the baseline's calls recorded.
        seconds_a_question: Wall-clock time that one answer takes, with as many threads as will be used.
        seconds_left: Wall-clock time that is left.
    """
    if not allocation.verdict_possible:
        return allocation.why_not
    lack = budget.shortfall(allocation.trial_calls + allocation.reserved_calls)
    if lack is None:
        questions = len(allocation.search) + allocation.confirm_questions + allocation.test_questions
        seconds = questions * seconds_a_question
        if seconds > seconds_left:
            lack = f"about {seconds:,.0f} s, and {max(0.0, seconds_left):,.0f} s are left"
    return None if lack is None else f"one trial and the verdict take {lack}"
