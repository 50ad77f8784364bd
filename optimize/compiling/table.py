"""The optimizers by name. KNNFewShot is not among them: it chooses demos per question, so no prompt can be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optimize.compiling.chain import Chain
from optimize.compiling.optimizer import Optimizer
from optimize.compiling.steps import STEPS, find

if TYPE_CHECKING:
    from programs.lm import LMSpec

OPTIMIZERS: dict[str, type[Optimizer]] = {**STEPS, "chain": Chain}


def open_optimizer(name: str, params: Mapping[str, Any] | list[Any]) -> Optimizer:
    """An optimizer with its parameters; those of `chain` may be the list of its steps.

    Raises:
        RagwrightError: The optimizer or one of its parameters is unknown or out of range.
    """
    given = params if isinstance(params, Mapping) else {"steps": params}
    return find(OPTIMIZERS, name).of(name, given)


def check_optimizer(
    name: str, params: Mapping[str, Any] | list[Any], train: int | None = None, reflection: LMSpec | None = None
) -> None:
    """See whether an optimizer can be run so.

    Args:
        name: The optimizer's.
        params: Its parameters.
        train: Training examples that there are; None: not known yet.
        reflection: The LM that writes instructions; None: not known yet.

    Raises:
        RagwrightError: The optimizer or a parameter is unknown or out of range, there are too few examples, or the
            reflection LM may not write enough.
    """
    optimizer = open_optimizer(name, params)
    if train is not None:
        optimizer.check_train(train)
    if reflection is not None:
        optimizer.check_writer(reflection.model, reflection.max_tokens)


def predicted_calls(name: str, params: Mapping[str, Any] | list[Any], predictors: int, train: int) -> int:
    """The most LM calls that an optimizer can take, task and reflection together.

    A judge's are not among them; `optimize.studies.prices` adds those.

    Args:
        name: The optimizer's.
        params: Its parameters.
        predictors: LM calls of one run of the program.
        train: Training examples.

    Raises:
        RagwrightError: As `check_optimizer`, without regard to the number of examples.
    """
    return open_optimizer(name, params).most_calls(predictors, train)
