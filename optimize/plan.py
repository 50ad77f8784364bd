"""What a study is, what it will cost and what it can show: known before the first call."""

from __future__ import annotations

import math
from pathlib import Path

from optimize.check import Checked
from optimize.dataset import SPLITS, Dataset, load_dataset
from optimize.example import Example
from optimize.search_space import largest_context, space_size
from optimize.splits import group_examples

SPREAD = 0.4
"""Standard deviation of one question's difference in score that the plan assumes, until there is data. Measured
with the local model: 0.43 on SQuAD, 0.21 to 0.30 on the handbook (benchmarks/README.md has the studies)."""


def describe_study(checked: Checked) -> dict[str, str]:
    """What `check` prints: the study in words, and who will see the documents."""
    from programs.lm import describe_endpoint

    study, dataset = checked.study, checked.dataset
    embedders = sorted({*study.space.embedder, study.baseline.embedder} - {"none"})
    remote = [name for name in embedders if name != "wordllama"]
    sees = [f"{describe_endpoint(checked.spec)} (passages and questions)"]
    sees += [f"{name} (all documents, to embed them)" for name in remote] or ["this process (embeddings)"]
    return {
        "study": f"{study.name}, program {study.program}, metric {study.metric}, seed {study.seed}",
        "data": _counts(checked),
        "space": f"{space_size(study, 1)} configurations x candidates of {', '.join(study.optimizer_params())}",
        "sees text": "; ".join(sees),
        **({"note": "; ".join(dataset.notes[:3])} if dataset.notes else {}),
    }


def _counts(checked: Checked) -> str:
    dataset = checked.dataset
    sizes = ", ".join(f"{len(getattr(dataset, name))} {name}" for name in SPLITS)
    return f"{dataset.name}: {len(dataset.corpus.documents)} documents, questions: {sizes}"


def plan_study(checked: Checked) -> dict[str, str]:
    """What `plan` prints: calls and tokens by phase, and the smallest effect that the test can show."""
    study, allocation = checked.study, checked.allocation
    left = study.budget.lm_calls - allocation.reserved_calls
    trials = max(0, left // allocation.trial_calls - 1)
    documents = len({allocation.groups[example.id] for example in allocation.test})
    most = largest_context(study.space)
    return {
        "baseline": f"{allocation.trial_calls} calls on {len(allocation.search)} questions",
        "compile and search": f"up to {left - allocation.trial_calls} calls: about {trials} trials",
        "confirm": f"{allocation.confirm_calls} calls on {len(allocation.confirm)} questions",
        "test": f"{allocation.test_calls} calls on {len(allocation.test)} questions from {documents} groups",
        "in all": f"{study.budget.lm_calls} calls at most",
        "tokens read": f"up to {study.budget.lm_calls * (most + 64):,}, demos not counted",
        "smallest effect shown": f"about {_detectable(len(allocation.test), documents):.2f} in {study.metric} "
        f"(80 % power, if differences of a question spread by {SPREAD})",
    }


def _detectable(questions: int, groups: int) -> float:
    """Smallest true difference that a two-sided test at 95 % finds in 80 % of the cases, were questions independent."""
    from scipy import special

    if groups < 2:
        return math.inf
    return float(
        (special.stdtrit(groups - 1, 0.975) + special.stdtrit(groups - 1, 0.8)) * SPREAD / math.sqrt(questions)
    )


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
