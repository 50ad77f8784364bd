"""The optimizers that a chain is made of."""

from __future__ import annotations

from collections.abc import Mapping

from optimize.compiling.copro import Copro
from optimize.compiling.fewshot import BootstrapFewShot, LabeledFewShot, RandomSearch
from optimize.compiling.gepa import Gepa
from optimize.compiling.infer_rules import InferRules
from optimize.compiling.mipro import Mipro
from optimize.compiling.optimizer import Optimizer
from optimize.compiling.simba import Simba
from programs.errors import RagwrightError

STEPS: dict[str, type[Optimizer]] = {
    "labeled_fewshot": LabeledFewShot,
    "bootstrap_fewshot": BootstrapFewShot,
    "random_search": RandomSearch,
    "copro": Copro,
    "mipro": Mipro,
    "simba": Simba,
    "gepa": Gepa,
    "infer_rules": InferRules,
}


def find(table: Mapping[str, type[Optimizer]], name: str) -> type[Optimizer]:
    """An optimizer of a table.

    Raises:
        RagwrightError: There is none of that name.
    """
    if name not in table:
        raise RagwrightError(f"unknown optimizer {name!r}; choices: {', '.join(table)}.")
    return table[name]
