"""Drawings of reports: scores with their intervals, and what quality costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from optimize.inference.pareto import front
from optimize.reporting.drawing import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Dot,
    beside,
    grid_x,
    grid_y,
    mark,
    nice_ticks,
    svg,
)

_NAME_PIXELS = 7.9
"""Width of a letter of a name on a phone, where letters are larger."""

_LONGEST_NAME = 22


def interval_chart(dots: Sequence[Dot], unit: str, digits: int = 3, zero: bool = False) -> str:
    """Scores one below the other on one axis, each with its interval, named by `unit`.

    Args:
        dots: At least one.
        unit: What is shown, and of what kind the intervals are.
        digits: As many are shown.
        zero: Whether 0 is a line to be seen: for differences.
    """
    height = TOP + 44 * len(dots) + BOTTOM
    left = 16 + _NAME_PIXELS * max(min(len(dot.label), _LONGEST_NAME) for dot in dots)
    ends = [*(dot.low for dot in dots), *(dot.high for dot in dots), *([0.0] if zero else [])]
    x = Axis(nice_ticks(min(ends), max(ends), most=5), max(84.0, left + 8), WIDTH - RIGHT)
    parts = grid_x(x, height, unit)
    if zero:
        parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    for position, dot in enumerate(dots):
        y = TOP + 22 + 44 * position
        value, low, high = (f"{number:.{digits}f}" for number in (dot.value, dot.low, dot.high))
        parts += [
            f'<text class="name" x="{x.start - 10:g}" y="{y + 4}" text-anchor="end">{escape(_short(dot.label))}</text>',
            f'<g class="{dot.kind}"><line class="whisker" x1="{x(dot.low)}" x2="{x(dot.high)}" y1="{y}" y2="{y}"/>',
            mark(dot.kind, x(dot.value), y, f"{dot.label}: {value} [{low}, {high}]"),
            f'<text class="value" x="{x(dot.value)}" y="{y - 11}" text-anchor="middle">{value}</text></g>',
        ]
    told = ", ".join(f"{dot.label} {dot.value:.{digits}f}" for dot in dots)
    return svg(height, f"{unit}: {told}", parts)


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_NAME else f"{label[: _LONGEST_NAME - 1]}…"


@dataclass(frozen=True, slots=True)
class Mark:
    """A configuration in the plane of cost and quality.

    Attributes:
        cost: Lower is better.
        value: Higher is better.
        kind: `baseline`, `winner` or `trial`: the CSS class.
        title: What is said of it when it is pointed at.
        spread: Half the length of the value's error bar; 0 for none.
        faint: Whether less is known of it than of others.
        name: Stands beside it; empty for none.
    """

    cost: float
    value: float
    kind: str
    title: str
    spread: float = 0.0
    faint: bool = False
    name: str = ""


def pareto_front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other beats in value without more cost, by rising cost."""
    losses = np.array([[mark.cost, -mark.value] for mark in marks])
    return sorted((marks[place] for place in front(losses)), key=lambda mark: mark.cost)


def trade_off_chart(marks: Sequence[Mark], cost: str, unit: str, label: str) -> str:
    """Marks in the plane of cost and value, with their Pareto front."""
    height = 320
    x = Axis(nice_ticks(0, max(mark.cost for mark in marks)), LEFT, WIDTH - RIGHT)
    ends = [mark.value + sign * mark.spread for mark in marks for sign in (-1, 1)]
    y = Axis(nice_ticks(min(ends), max(ends)), height - BOTTOM, TOP)
    parts = grid_x(x, height, cost) + grid_y(y, unit)
    parts.append(_front_line(pareto_front(marks), x, y))
    for one in sorted(marks, key=lambda one: one.kind != "trial"):
        at = x(one.cost), y(one.value)
        name = beside(one.name, *at) if one.name else ""
        kind = f"{one.kind} faint" if one.faint else one.kind
        parts.append(f'<g class="{kind}">{_error_bar(one, x, y)}{mark(one.kind, *at, one.title)}{name}</g>')
    return svg(height, label, parts)


def _error_bar(one: Mark, x: Axis, y: Axis) -> str:
    if not one.spread:
        return ""
    at, low, high = x(one.cost), y(one.value - one.spread), y(one.value + one.spread)
    return f'<line class="error" x1="{at}" x2="{at}" y1="{low}" y2="{high}"/>'


def _front_line(marks: Sequence[Mark], x: Axis, y: Axis) -> str:
    """A staircase: between two points the cheaper one is what is to be had."""
    path, last = "", None
    for one in marks:
        at = x(one.cost), y(one.value)
        path += f"M{at[0]} {at[1]}" if last is None else f"H{at[0]}V{at[1]}"
        last = at
    return f'<path class="front" d="{path}H{x.end}"/>'
