"""Is everything in place? Each finding is one thing that was tried."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from programs.errors import RagwrightError

PACKAGES = ("dspy", "chromadb", "optuna", "mlflow", "datasets", "litellm", "bm25s", "wordllama", "xllamacpp")
MALICIOUS = {"litellm": ("1.82.7", "1.82.8")}


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        what: The thing.
        ok: Whether it works.
        detail: What was seen.
    """

    what: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Try Python, the packages, the embedder and the local model."""
    return [_python(), *map(_package, PACKAGES), _tried("embedder", _embed), _tried("local model", _complete)]


def _python() -> Finding:
    return Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.machine()}")


def _package(name: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(
            name, name == "xllamacpp", "not installed" + ("; only `lm: local` needs it" if name == "xllamacpp" else "")
        )
    return Finding(name, found not in MALICIOUS.get(name, ()), found)


def _tried(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, attempt())
    except RagwrightError as error:
        return Finding(what, False, str(error))


def _embed() -> str:
    from programs.embedding import open_embedder

    embedder = open_embedder("wordllama")
    return f"wordllama, {embedder.embed(['a word']).shape[1]} dimensions"


def _complete() -> str:
    import dspy

    from programs.lm import open_lm, parse_lm
    from programs.prompt_format import FORMATS

    lm = open_lm(parse_lm("local"), cache=None)
    with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
        answer = dspy.Predict("context: list[str], question -> answer")(
            context=["The lighthouse at Varn was built in 1871."], question="When was the lighthouse built?"
        ).answer
    return f"asked when a lighthouse was built, it said {answer!r}"
