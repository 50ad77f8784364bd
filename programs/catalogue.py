"""Programs by name, and a person's own by `module:factory`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy

    from programs.rag import SearchCall

Factory = Callable[..., "dspy.Module"]


def _built_in(module: str, name: str) -> Factory:
    """A factory for one of our own classes; its module, and with it DSPy, is imported when it is called."""

    def build(search: SearchCall, *, abstain: bool) -> dspy.Module:
        from programs.signatures import Answer, AnswerOrAbstain

        program: Factory = getattr(importlib.import_module(module), name)
        return program(search, AnswerOrAbstain if abstain else Answer)

    return build


PROGRAMS: dict[str, Factory] = {
    "rag": _built_in("programs.rag", "RAG"),
    "rewrite": _built_in("programs.query_writing", "Rewrite"),
    "hyde": _built_in("programs.query_writing", "HyDE"),
    "multi_query": _built_in("programs.query_writing", "MultiQuery"),
    "multihop": _built_in("programs.multihop", "MultiHop"),
}


def build_program(name: str, search: SearchCall, *, abstain: bool = False) -> dspy.Module:
    """Make the program that a study names.

    Args:
        name: A name in `PROGRAMS`, or `module:factory` where `factory(search)` returns a `dspy.Module` whose
            prediction has an `answer` and, for retrieval measures, `passages`.
        search: Returns the passages for a query, best first.
        abstain: Whether the data has questions that the corpus cannot answer; a person's own factory is not told.

    Raises:
        RagwrightError: The name is unknown or cannot be imported.
    """
    if name in PROGRAMS:
        return PROGRAMS[name](search, abstain=abstain)
    return load_object(name, f"program: {name!r} is neither one of {', '.join(PROGRAMS)} nor module:factory")(search)


def load_object(reference: str, what: str) -> Any:
    """Import `module:name`, also from the working directory, as a person's own code is found there.

    Args:
        reference: `package.module:attribute`.
        what: The start of the error message, should it not be found.

    Raises:
        RagwrightError: The reference is malformed, the module is missing or has no such name.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise RagwrightError(f"{what}.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RagwrightError(f"{what}: no module named {error.name!r} (looked in {here} too).") from None
    if not hasattr(module, attribute):
        raise RagwrightError(f"{what}: module {module_name!r} has no {attribute!r}.")
    return getattr(module, attribute)


def source_identity(reference: str) -> str:
    """What tells one version of a person's own code from another: its source; for a built-in name, the name."""
    if ":" not in reference:
        return reference
    target = load_object(reference, f"{reference!r} cannot be read")
    module = inspect.getmodule(target)
    return inspect.getsource(module if module is not None else target)
