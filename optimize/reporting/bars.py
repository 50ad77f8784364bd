"""Drawings of reports: how many questions are left after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from optimize.reporting.drawing import RIGHT, WIDTH, svg

_NAMES, _BAR, _ROW = 130, 13, 44
_VALUE = 34
"""Pixels for the number behind a bar."""


Step = tuple[str, Sequence[int]]
"""A stage that was passed, and how many questions of each side are left after it."""


def funnel_chart(steps: Sequence[Step], sides: Sequence[tuple[str, str]], label: str) -> str:
    """What is left of the questions after each stage, a bar of every side; the first stage has all of them.

    Args:
        steps: The stages.
        sides: A name and a CSS class each.
        label: What is to be seen.
    """
    top, row = 26, _ROW if len(sides) > 1 else _ROW - _BAR
    full, whole = WIDTH - RIGHT - _VALUE - _NAMES, steps[0][1]
    parts = [_legend(sides)]
    for position, (stage, left) in enumerate(steps):
        y = top + 8 + row * position
        middle = y + (_BAR + 3) * len(sides) / 2 + 3
        parts.append(f'<text class="name" x="{_NAMES - 10}" y="{middle:g}" text-anchor="end">{escape(stage)}</text>')
        for place, ((name, kind), count) in enumerate(zip(sides, left, strict=True)):
            at, width = y + (_BAR + 3) * place, max(1.0, round(full * count / max(1, whole[place]), 1))
            parts.append(
                f'<g class="{kind}"><rect class="bar" x="{_NAMES}" y="{at}" width="{width}" height="{_BAR}" rx="2">'
                f"<title>{escape(f'{name}, {stage}: {count}')}</title></rect>"
                f'<text class="value" x="{_NAMES + width + 6:g}" y="{at + 11}">{count}</text></g>'
            )
    return svg(top + row * len(steps) + 10, label, parts)


def _legend(sides: Sequence[tuple[str, str]]) -> str:
    parts, x = [], float(_NAMES)
    for name, kind in sides:
        parts.append(
            f'<g class="{kind}"><rect class="bar" x="{x:g}" y="4" width="{_BAR}" height="{_BAR}" rx="2"/>'
            f'<text x="{x + 18:g}" y="15">{escape(name)}</text></g>'
        )
        x += 34 + 7 * len(name)
    return "".join(parts)
