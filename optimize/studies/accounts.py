"""What a study may spend and what each phase works on, as its folder and its budget say."""

from __future__ import annotations

from typing import Any

from optimize.data.dataset import Dataset
from optimize.evaluation.ledger import Ledger
from optimize.runs.run_dir import RunDir
from optimize.settings.study import BudgetConfig, StudyConfig
from optimize.studies.allocation import Allocation, allocate
from optimize.studies.budget import Budget
from optimize.studies.prices import calls_per_question

VERDICT_PHASES = ("confirm-", "test-")
"""How the units of the verdict begin: what they took is not charged to the search."""


def open_allocation(config: StudyConfig, dataset: Dataset, run: RunDir) -> Allocation:
    """The examples of each phase; those of the first process hold for all later ones, whatever their budget."""
    kept = run.read_json("examples.json")
    allocation = allocate(config, dataset, calls_per_question(config, dataset), kept=kept)
    if kept is None or allocation.verdict_possible:
        run.write_json("examples.json", allocation.ids())
    return allocation


def open_budget(limits: BudgetConfig, run: RunDir, reserved: int) -> Budget:
    """The budget with what was spent of it, and so many calls kept for the verdict."""
    searching = _searching(run)
    budget = Budget(limits.lm_calls, limits.tokens, limits.usd, searching + _earlier_verdicts(limits, run, searching))
    budget.reserved = reserved
    return budget


def verdict_begun(run: RunDir) -> bool:
    """Whether a confirm or test question was asked before."""
    return any(unit.startswith(VERDICT_PHASES) for unit, _ in run.finished())


def _searching(run: RunDir) -> Ledger:
    return run.spent(lambda unit: not unit.startswith(VERDICT_PHASES))


def _earlier_verdicts(limits: BudgetConfig, run: RunDir, searching: Ledger) -> Ledger:
    """What verdicts under smaller budgets took: this one may be about another winner and is paid for anew.

    It is written down when a budget is first given, so that the same budget always means the same search.
    """
    kept: dict[str, Any] = run.read_json("verdicts.json") or {}
    name = limits.model_dump_json()
    if name not in kept:
        kept[name] = (run.spent() - searching).as_json()
        run.write_json("verdicts.json", kept)
    return Ledger.from_json(kept[name])
