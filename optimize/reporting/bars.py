"""Drawings of reports: how many questions are left after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from optimize.reporting.drawing import RIGHT, WIDTH, svg

_NAMES, _BAR, _ROW = 130, 13, 44
_VALUE = 34
"""Pixels for the number behind a bar."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is left after a stage.

    Attributes:
        name: What was passed.
        left: Share of the questions, in [0, 1], of each kind of configuration.
        told: The same as text.
    """

    name: str
    left: tuple[float, ...]
    told: tuple[str, ...]


def funnel_chart(steps: Sequence[Step], kinds: Sequence[str], label: str) -> str:
    """For each stage a bar of every kind (`baseline`, `winner`): what is left of all questions."""
    top, row = 26, _ROW if len(kinds) > 1 else _ROW - _BAR
    full = WIDTH - RIGHT - _VALUE - _NAMES
    parts = [_legend(kinds)]
    for position, step in enumerate(steps):
        y = top + 8 + row * position
        middle = y + (_BAR + 3) * len(kinds) / 2 + 3
        parts.append(
            f'<text class="name" x="{_NAMES - 10}" y="{middle:g}" text-anchor="end">{escape(step.name)}</text>'
        )
        for place, (kind, share, told) in enumerate(zip(kinds, step.left, step.told, strict=True)):
            at, width = y + (_BAR + 3) * place, max(1.0, round(full * share, 1))
            parts.append(
                f'<g class="{kind}"><rect class="bar" x="{_NAMES}" y="{at}" width="{width}" height="{_BAR}" rx="2">'
                f"<title>{escape(f'{kind}, {step.name}: {told}')}</title></rect>"
                f'<text class="value" x="{_NAMES + width + 6:g}" y="{at + 11}">{escape(told)}</text></g>'
            )
    return svg(top + row * len(steps) + 10, label, parts)


def _legend(kinds: Sequence[str]) -> str:
    parts, x = [], float(_NAMES)
    for kind in kinds:
        parts.append(
            f'<g class="{kind}"><rect class="bar" x="{x:g}" y="4" width="{_BAR}" height="{_BAR}" rx="2"/>'
            f'<text x="{x + 18:g}" y="15">{escape(kind)}</text></g>'
        )
        x += 34 + 7 * len(kind)
    return "".join(parts)
