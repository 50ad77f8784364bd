"""What a study is, what it will cost and what it can show: known before the first call."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from optimize.compiling.table import open_optimizer
from optimize.data.dataset import SPLITS, Dataset, load_dataset
from optimize.data.example import Example
from optimize.data.splits import group_examples
from optimize.inference.statistics import detectable_effect, questions_needed
from optimize.metrics.table import metric_needs, metric_notes
from optimize.reporting.headline import metric_title
from optimize.searching.explorer import CYCLES, turns_of
from optimize.searching.point import questions_a_step
from optimize.settings.space import largest_context, space_size
from optimize.settings.study import BudgetConfig, StudyConfig
from optimize.studies.check import Checked
from optimize.studies.prices import turn_calls

SPREAD = 0.4
"""Standard deviation of one question's difference in score that the plan assumes, until there is data. Measured
with the local model: 0.43 on SQuAD, 0.21 to 0.30 on the handbook (benchmarks/README.md has the studies)."""

ICC = 0.1
"""Intra-cluster correlation of those differences that the plan assumes. Measured with the local model on 60 SQuAD
questions from 8 articles, 252 pairs of configurations: 0.00 in the middle, above 0.12 in a tenth of the pairs."""


def describe_study(checked: Checked) -> dict[str, str]:
    """What `check` prints: the study in words, and who will see the documents."""
    study, dataset = checked.study, checked.dataset
    specs = (study.metric, *study.guards)
    notes = [*dataset.notes[:3], *(note for spec in specs for note in metric_notes(spec, study.program))]
    guards = [f"{name} may fall by {allowed:g}" for name, allowed in study.guards.items()]
    return {
        "study": f"{study.name}, program {study.program}, metric {metric_title(study.metric)}, seed {study.seed}",
        "data": _counts(checked),
        "space": f"{space_size(study, 1)} configurations x candidates of {', '.join(study.optimizer_params())}",
        **({"guards": "; ".join(guards)} if guards else {}),
        "sees text": "; ".join(_seeing(checked)),
        **({"note": "; ".join(notes)} if notes else {}),
        **({"no verdict": checked.allocation.why_not} if checked.allocation.why_not else {}),
    }


def _seeing(checked: Checked) -> Iterator[str]:
    """Every endpoint, with what it is shown."""
    from programs.lm import describe_endpoint

    study = checked.study
    names = [name for name, params in study.optimizer_params().items() if open_optimizer(name, params).reflects]
    yield f"{describe_endpoint(checked.spec)} (passages and questions)"
    if names:
        writer = describe_endpoint(checked.reflection or checked.spec)
        yield f"{writer} (training questions, their answers and passages, to write instructions: {', '.join(names)})"
    specs = (study.metric, *study.guards)
    if checked.judge is not None and any("judge" in metric_needs(spec) for spec in specs):
        with_passages = any({"judge", "context"} <= metric_needs(spec) for spec in specs)
        shown = "questions, answers and passages" if with_passages else "questions and answers"
        yield f"{describe_endpoint(checked.judge)} ({shown}, to judge)"
    embedders = sorted({*study.space.embedder, study.baseline.embedder} - {"none", "wordllama"})
    for name in embedders:
        yield f"{name} (all documents, to embed them)"
    if not embedders:
        yield "this process (embeddings)"


def _counts(checked: Checked) -> str:
    dataset = checked.dataset
    sizes = ", ".join(f"{len(getattr(dataset, name))} {name}" for name in SPLITS)
    return f"{dataset.name}: {len(dataset.corpus.documents)} documents, questions: {sizes}"


def plan_study(checked: Checked) -> dict[str, str]:
    """What `plan` prints: calls and tokens by phase, and the smallest effect that the test can show."""
    study, allocation = checked.study, checked.allocation
    left = study.budget.lm_calls - allocation.reserved_calls
    most, step = largest_context(study.space), questions_a_step(len(allocation.search))
    return {
        "baseline": f"{allocation.trial_calls} calls on {len(allocation.search)} questions",
        "search and compile": f"up to {left - allocation.trial_calls} calls, {step} questions a step",
        **_turns(checked),
        **(_verdict(checked) if allocation.verdict_possible else {"no verdict": str(allocation.why_not)}),
        "in all": _most(study.budget),
        "tokens read": f"up to {study.budget.lm_calls * (most + 64):,}, demos not counted",
    }


def _turns(checked: Checked) -> dict[str, str]:
    """Each optimizer with the most that one turn of it takes."""
    turns = turns_of(
        checked.study.optimizer_params(), turn_calls(checked.study, checked.dataset, len(checked.allocation.train))
    )
    return {f"  {turn.name}": f"at most {turn.most_calls:,} calls a turn, at most {CYCLES} turns" for turn in turns}


def _most(budget: BudgetConfig) -> str:
    """Every limit that is set."""
    limits = {
        "calls": f"{budget.lm_calls:,}",
        "tokens": None if budget.tokens is None else f"{budget.tokens:,}",
        "USD": None if budget.usd is None else f"{budget.usd:g}",
        "minutes": None if budget.minutes is None else f"{budget.minutes:g}",
    }
    return ", ".join(f"{value} {name}" for name, value in limits.items() if value is not None) + " at most"


def _verdict(checked: Checked) -> dict[str, str]:
    study, allocation = checked.study, checked.allocation
    sizes = list(Counter(allocation.groups[example.id] for example in allocation.test).values())
    return {
        "confirm": f"{allocation.confirm_calls} calls on {len(allocation.confirm)} questions",
        "test": f"{allocation.test_calls} calls on {len(allocation.test)} questions from {len(sizes)} groups",
        "smallest effect shown": _smallest_effect(study, sizes),
        "questions needed": _questions_needed(study, sizes),
    }


def _smallest_effect(study: StudyConfig, sizes: Sequence[int]) -> str:
    effect = detectable_effect(sizes, SPREAD, ICC)
    if math.isinf(effect):
        return "none: all test questions are of one group"
    return (
        f"about {effect:.2f} in {metric_title(study.metric)} (80 % power, if differences of a question spread by "
        f"{SPREAD} and those of a group correlate by {ICC})"
    )


def _questions_needed(study: StudyConfig, sizes: Sequence[int]) -> str:
    """What it takes to show the effect that matters; the test cannot always be made that large."""
    wanted = f"to show {study.smallest_effect:g} (smallest_effect)"
    if detectable_effect(sizes, SPREAD, ICC) <= study.smallest_effect:
        return f"no more {wanted}"
    per_group = sum(sizes) / len(sizes)
    questions, groups = questions_needed(study.smallest_effect, SPREAD, ICC, per_group)
    return f"about {_round_up(questions):,} in test, from {_round_up(groups):,} groups, {wanted}"


def _round_up(count: int) -> int:
    """To two digits: the assumptions carry no more."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def describe_dataset(folder: Path) -> dict[str, str]:
    """What `data check` prints: counts, groups, and the share of questions that retrieval can be measured on."""
    dataset = load_dataset(folder)
    documents = {document.id: document for document in dataset.corpus.documents}
    groups = group_examples(dataset.examples, documents)
    shared = _shared_groups(dataset, groups)
    spans = sum(bool(example.evidence) for example in dataset.examples)
    lines = {
        "documents": str(len(documents)),
        "fingerprint": dataset.fingerprint,
        **{name: _split_line(getattr(dataset, name), groups) for name in SPLITS},
        "evidence": f"{spans} of {len(dataset.examples)} questions can measure retrieval",
        "answers": f"not known for {dataset.unknown_answers} of {len(dataset.examples)} questions",
    }
    if shared:
        lines["warning"] = f"{len(shared)} group(s) of dependent questions lie in more than one split"
    return lines | {f"note {number}": note for number, note in enumerate(dataset.notes[:20], start=1)}


def _split_line(examples: tuple[Example, ...], groups: dict[str, str]) -> str:
    names = {groups[example.id] for example in examples}
    return f"{len(examples)} questions from {len(names)} groups"


def _shared_groups(dataset: Dataset, groups: dict[str, str]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for name in SPLITS:
        for example in getattr(dataset, name):
            seen.setdefault(groups[example.id], set()).add(name)
    return {group for group, splits in seen.items() if len(splits) > 1}
