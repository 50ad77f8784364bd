"""The drawings of reports, as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from optimize.outcome import Entry
from optimize.pareto import front

WIDTH = 440
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 22, 44


@dataclass(frozen=True, slots=True)
class Dot:
    """A score with its interval.

    Attributes:
        label: Whose it is.
        value: The score.
        low: Lower end of the interval.
        high: Upper end.
        kind: `baseline` or `winner`: the CSS class.
    """

    label: str
    value: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class _Axis:
    """Maps values to pixels."""

    ticks: Sequence[float]
    start: float
    end: float

    @property
    def digits(self) -> int:
        step = self.ticks[1] - self.ticks[0]
        return next(digits for digits in range(12) if math.isclose(round(step, digits), step))

    def __call__(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(self.start + share * (self.end - self.start), 1)

    def label(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers, evenly spaced, the first at or below `low` and the last at or above `high`."""
    if high - low < 1e-9:
        low, high = low - 0.05 * max(1.0, abs(low)), high + 0.05 * max(1.0, abs(high))
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = [factor * scale * power for scale in (1, 10, 100) for factor in (1, 2, 2.5, 5)]
    for step in steps:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            return [index * step for index in range(first, last + 1)]
    raise AssertionError("the largest step spans the range")


def interval_chart(dots: Sequence[Dot], unit: str) -> str:
    """Scores side by side on one axis, each with its interval, named by `unit`."""
    height = TOP + 44 * len(dots) + BOTTOM
    x = _Axis(nice_ticks(min(dot.low for dot in dots), max(dot.high for dot in dots)), 84, WIDTH - RIGHT)
    parts = _grid_x(x, height, f"{unit}, 95 % interval")
    for position, dot in enumerate(dots):
        y = TOP + 22 + 44 * position
        parts += [
            f'<text class="name" x="74" y="{y + 4}" text-anchor="end">{escape(dot.label)}</text>',
            f'<g class="{dot.kind}"><line class="whisker" x1="{x(dot.low)}" x2="{x(dot.high)}" y1="{y}" y2="{y}"/>',
            _mark(dot.kind, x(dot.value), y, f"{dot.label}: {dot.value:.3f} [{dot.low:.3f}, {dot.high:.3f}]"),
            f'<text class="value" x="{x(dot.value)}" y="{y - 11}" text-anchor="middle">{dot.value:.3f}</text></g>',
        ]
    return _svg(height, f"Scores with intervals: {', '.join(f'{dot.label} {dot.value:.3f}' for dot in dots)}", parts)


@dataclass(frozen=True, slots=True)
class Mark:
    """A configuration in the plane of cost and quality.

    Attributes:
        cost: Lower is better.
        value: Higher is better.
        kind: `baseline`, `winner` or `trial`: the CSS class, and the label of the first two.
        title: What is said of it when it is pointed at.
        spread: Half the length of the value's error bar; 0 for none.
        faint: Whether less is known of it than of others.
    """

    cost: float
    value: float
    kind: str
    title: str
    spread: float = 0.0
    faint: bool = False


def pareto_front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other beats in value without more cost, by rising cost."""
    losses = np.array([[mark.cost, -mark.value] for mark in marks])
    return sorted((marks[place] for place in front(losses)), key=lambda mark: mark.cost)


def trade_off_chart(marks: Sequence[Mark], cost: str, unit: str, label: str) -> str:
    """Marks in the plane of cost and value, with their Pareto front."""
    height = 320
    x = _Axis(nice_ticks(0, max(mark.cost for mark in marks)), LEFT, WIDTH - RIGHT)
    ends = [mark.value + sign * mark.spread for mark in marks for sign in (-1, 1)]
    y = _Axis(nice_ticks(min(ends), max(ends)), height - BOTTOM, TOP)
    parts = _grid_x(x, height, cost) + _grid_y(y, unit)
    parts.append(_front_line(pareto_front(marks), x, y))
    for mark in sorted(marks, key=lambda mark: mark.kind != "trial"):
        at = x(mark.cost), y(mark.value)
        name = "" if mark.kind == "trial" else _beside(mark.kind, *at)
        kind = f"{mark.kind} faint" if mark.faint else mark.kind
        parts.append(f'<g class="{kind}">{_error_bar(mark, x, y)}{_mark(mark.kind, *at, mark.title)}{name}</g>')
    return _svg(height, label, parts)


def same(one: Entry, other: Entry) -> bool:
    """Whether two entries are of one configuration and candidate."""
    return (one.config, one.candidate) == (other.config, other.candidate)


def describe(entry: Entry) -> str:
    """A setting in a few words."""
    c = entry.config
    return f"{c.splitter} {c.chunk_size} x {c.top_k}, {c.retriever}, {c.reranker}, {c.prompt_format}, {entry.candidate}"


def _error_bar(mark: Mark, x: _Axis, y: _Axis) -> str:
    if not mark.spread:
        return ""
    at, low, high = x(mark.cost), y(mark.value - mark.spread), y(mark.value + mark.spread)
    return f'<line class="error" x1="{at}" x2="{at}" y1="{low}" y2="{high}"/>'


def _mark(kind: str, x: float, y: float, title: str) -> str:
    told = f"<title>{escape(title)}</title>"
    if kind == "baseline":
        return f'<rect class="mark" x="{x - 5}" y="{y - 5}" width="10" height="10">{told}</rect>'
    return f'<circle class="mark" cx="{x}" cy="{y}" r="{6 if kind == "winner" else 4}">{told}</circle>'


def _beside(text: str, x: float, y: float) -> str:
    left = x > 0.7 * WIDTH
    return (
        f'<text x="{x - 10 if left else x + 10}" y="{y + 4}" text-anchor="{"end" if left else "start"}">{text}</text>'
    )


def _front_line(marks: Sequence[Mark], x: _Axis, y: _Axis) -> str:
    """A staircase: between two points the cheaper one is what is to be had."""
    path, last = "", None
    for mark in marks:
        at = x(mark.cost), y(mark.value)
        path += f"M{at[0]} {at[1]}" if last is None else f"H{at[0]}V{at[1]}"
        last = at
    return f'<path class="front" d="{path}H{x.end}"/>'


def _grid_x(axis: _Axis, height: float, title: str) -> list[str]:
    bottom = height - BOTTOM
    lines = [f'<line class="grid" x1="{axis(t)}" x2="{axis(t)}" y1="{TOP}" y2="{bottom}"/>' for t in axis.ticks]
    texts = [f'<text x="{axis(t)}" y="{bottom + 16}" text-anchor="middle">{axis.label(t)}</text>' for t in axis.ticks]
    middle = (axis.start + axis.end) / 2
    return [*lines, *texts, f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(title)}</text>']


def _grid_y(axis: _Axis, title: str) -> list[str]:
    lines = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axis(t)}" y2="{axis(t)}"/>' for t in axis.ticks]
    texts = [f'<text x="{LEFT - 6}" y="{axis(t) + 4}" text-anchor="end">{axis.label(t)}</text>' for t in axis.ticks]
    middle = (axis.start + axis.end) / 2
    turned = f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(title)}</text>'
    return [*lines, *texts, turned]


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
