"""What is set differently: in winners, and in study files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optimize.reporting.headline import MISSING
from optimize.runs.run_dir import RunDir
from optimize.settings.study import load_study
from programs.addresses import without_credentials

_INSIDE = ("space", "baseline", "examples", "screen", "budget")
"""Parts of a study file whose settings are looked at one by one."""


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
