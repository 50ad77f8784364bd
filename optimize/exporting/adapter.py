"""The compact prompt format as one file that needs DSPy only, made from the source that the study itself ran."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

HEADER = '''"""The compact prompt format, and an engine for servers that take bare completions. Needs dspy only.

    import dspy
    from compact_adapter import CompactAdapter, CompletionEngine

    lm = dspy.LM("my-model", engine=CompletionEngine("my-model", "http://127.0.0.1:8080/v1", None, 120))
    lm.bare_completions = True  # leave this out for a chat model
    dspy.configure(lm=lm, adapter=CompactAdapter())
"""
'''

GRAMMAR_ENGINE = '''class LlamaCompletionEngine(CompletionEngine):
    """The same for llama.cpp's server, held to what the study held it to: an answer does not begin with its end."""

    def _post(self, body: Mapping[str, Any]) -> Any:
        return super()._post({**body, "grammar": NOT_EMPTY})'''

_LEFT_OUT = ("FORMATS", "render")
"""Names of the prompt formats' module that concern the other formats."""


def adapter_source(grammar: bool = False) -> str:
    """The source of `compact_adapter.py`.

    Args:
        grammar: Whether the model was held to a grammar, as one that runs in process is.
    """
    from programs import completion, prompt_format
    from programs.local_lm import NOT_EMPTY

    imported: dict[str, set[str]] = {}
    parts: list[str] = []
    for module in (completion, prompt_format):
        for statement in _kept(module):
            if isinstance(statement, ast.Import):
                imported |= {alias.name: set() for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                names = imported.setdefault(statement.module or "", set())
                names |= {alias.name for alias in statement.names}
            elif isinstance(statement, ast.Expr):
                parts[-1] += "\n" + _segment(module, statement)
            else:
                parts.append(_segment(module, statement))
    if grammar:
        parts += [f"NOT_EMPTY = {NOT_EMPTY!r}", GRAMMAR_ENGINE]
    names = imported.pop("__future__")
    head = [HEADER, _import("__future__", names), "", *(_import(*pair) for pair in sorted(imported.items()))]
    return "\n".join(head) + "\n\n" + "\n\n\n".join(parts) + "\n"


def _import(module: str, names: set[str]) -> str:
    return f"from {module} import {', '.join(sorted(names))}" if names else f"import {module}"


def _kept(module: ModuleType) -> Iterator[ast.stmt]:
    """The module's statements but for its docstring, imports of this tool, and what is left out."""
    kept = True
    for statement in ast.parse(inspect.getsource(module)).body[1:]:
        # A bare string documents the name before it and goes where that goes.
        kept = kept if isinstance(statement, ast.Expr) else not _is_left_out(statement)
        if kept:
            yield statement


def _is_left_out(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return (statement.module or "").split(".")[0] == "programs"
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return statement.name in _LEFT_OUT
    return (
        isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and statement.target.id in _LEFT_OUT
    )


def _segment(module: ModuleType, statement: ast.stmt) -> str:
    """A statement as written, comments included."""
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    lines = inspect.getsource(module).splitlines()[first - 1 : statement.end_lineno]
    return "\n".join(lines)
