"""Settings in words, and what is set differently: in trials, in winners, in study files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optimize.evaluation.outcome import Entry
from optimize.reporting.headline import MISSING
from optimize.runs.run_dir import RunDir
from optimize.settings.study import load_study
from programs.addresses import without_credentials
from programs.config import PipelineConfig

_INSIDE = ("space", "baseline", "examples", "screen", "budget")
"""Parts of a study file whose settings are looked at one by one."""


def same(one: Entry, other: Entry | None) -> bool:
    """Whether two entries are of one configuration and candidate."""
    return other is not None and (one.config, one.candidate) == (other.config, other.candidate)


def describe(c: PipelineConfig) -> str:
    """Retrieval in a few words: what has its usual value is not said."""
    size = c.splitter if c.splitter == "whole" else f"{c.splitter} {c.chunk_size}"
    extras = {
        f"overlap {c.chunk_overlap:g}": c.chunk_overlap,
        f"prefix {c.context_prefix}": c.context_prefix != "none",
        f"weight {c.dense_weight:g}": c.retriever == "weighted",
        c.embedder: c.embedder not in ("none", "wordllama"),
        f"where {c.filter}": c.filter,
        f"{c.reranker} of {c.retrieve_k}": c.reranker != "none",
        f"cutoff {c.cutoff:g}": c.cutoff,
        f"+{c.expansion}": c.expansion != "none",
    }
    return ", ".join([f"{size} x {c.top_k}", c.retriever, *(text for text, said in extras.items() if said)])


def differing(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Name -> the value in each column, where they are not all the same."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = {name: tuple(column.get(name) for column in columns) for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def study_settings(run: RunDir) -> dict[str, Any]:
    """The study file as flat settings, `space.top_k` for what stands inside."""
    content = load_study(run.path / "study.yaml").model_dump(mode="json")
    return dict(_flat(content))


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if name in _INSIDE:
            yield from ((f"{name}.{key}", one) for key, one in value.items())
        else:
            yield name, value


def setting_text(value: Any) -> str:
    """A setting for people; an address has no user, password or query."""
    if isinstance(value, list):
        return ", ".join(map(setting_text, value)) or "(none)"
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting_text(one)}" for name, one in value.items()) or "(none)"
    if value is None:
        return MISSING
    return f"{value:g}" if isinstance(value, float) else without_credentials(str(value)) or "(none)"
