"""Conditions on the documents' metadata, such as `lang=en, year>=2020`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from programs.errors import RagwrightError

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([^\s=!<>,][^=!<>,]*?)\s*(>=|<=|!=|=|>|<)\s*([^=!<>,\s][^,]*?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a metadata value."""

    key: str
    operator: str
    value: str

    def holds(self, metadata: Mapping[str, Any]) -> bool:
        """Whether it holds: numbers are compared as numbers, all else as text; of a list, one element is enough.

        A document without the key meets `!=` only.
        """
        if self.key not in metadata:
            return self.operator == "!="
        found = metadata[self.key]
        values = found if isinstance(found, list | tuple) else [found]
        compared = [self._compare(value) for value in values]
        return all(compared) if self.operator == "!=" else any(compared)

    def _compare(self, value: Any) -> bool:
        compare = _OPERATORS[self.operator]
        try:
            return compare(float(value), float(self.value))
        except (TypeError, ValueError):
            return compare(_text(value), self.value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_filter(text: str) -> tuple[Condition, ...]:
    """Read conditions that must all hold; none for a blank text.

    Raises:
        RagwrightError: It cannot be read.
    """
    if not text.strip():
        return ()
    conditions = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part)
        if match is None:
            choices = " ".join(_OPERATORS)
            raise RagwrightError(f"filter: {part.strip()!r} is not `key OPERATOR value`; operators: {choices}.")
        conditions.append(Condition(*match.groups()))
    return tuple(conditions)


def matches(conditions: tuple[Condition, ...], metadata: Mapping[str, Any]) -> bool:
    """Whether all conditions hold."""
    return all(condition.holds(metadata) for condition in conditions)
