"""What all drawings of reports have in common: axes, marks and the frame. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 420
LEFT, RIGHT, TOP, BOTTOM = 56, 22, 22, 46


@dataclass(frozen=True, slots=True)
class Dot:
    """A score with its interval.

    Attributes:
        label: Whose it is.
        value: The score.
        low: Lower end of the interval.
        high: Upper end.
        kind: `baseline`, `winner` or `trial`: the CSS class.
    """

    label: str
    value: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        ticks: Round values, evenly spaced, at least two.
        start: The pixel of the first.
        end: The pixel of the last.
    """

    ticks: Sequence[float]
    start: float
    end: float

    @property
    def digits(self) -> int:
        """Digits behind the point that tell the ticks apart."""
        step = self.ticks[1] - self.ticks[0]
        return next(digits for digits in range(12) if math.isclose(round(step, digits), step))

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(self.start + share * (self.end - self.start), 1)

    def label(self, value: float) -> str:
        """A tick as text; zero has no sign."""
        return f"{value + 0.0 if abs(value) > 1e-12 else 0.0:,.{self.digits}f}"


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


def grid_x(axis: Axis, height: float, title: str, top: float = TOP) -> list[str]:
    """Lines, numbers and title of a horizontal axis below a drawing."""
    bottom = height - BOTTOM
    lines = [f'<line class="grid" x1="{axis(t)}" x2="{axis(t)}" y1="{top}" y2="{bottom}"/>' for t in axis.ticks]
    texts = [f'<text x="{axis(t)}" y="{bottom + 16}" text-anchor="middle">{axis.label(t)}</text>' for t in axis.ticks]
    middle = (axis.start + axis.end) / 2
    return [*lines, *texts, f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(title)}</text>']


def grid_y(axis: Axis, title: str, right: float = WIDTH - RIGHT, left: float = LEFT) -> list[str]:
    """Lines, numbers and title of a vertical axis on the left of a drawing."""
    lines = [f'<line class="grid" x1="{left}" x2="{right}" y1="{axis(t)}" y2="{axis(t)}"/>' for t in axis.ticks]
    texts = [f'<text x="{left - 6}" y="{axis(t) + 4}" text-anchor="end">{axis.label(t)}</text>' for t in axis.ticks]
    middle = (axis.start + axis.end) / 2
    turned = f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(title)}</text>'
    return [*lines, *texts, turned] if title else [*lines, *texts]


def mark(kind: str, x: float, y: float, title: str, hollow: bool = False) -> str:
    """A mark that says its numbers when it is pointed at; a baseline is a square, all others are round."""
    told = f"<title>{escape(title)}</title>"
    style = "mark stopped" if hollow else "mark"
    if kind == "baseline":
        return f'<rect class="{style}" x="{x - 5:g}" y="{y - 5:g}" width="10" height="10">{told}</rect>'
    return f'<circle class="{style}" cx="{x}" cy="{y}" r="{6 if kind == "winner" else 4}">{told}</circle>'


def beside(text: str, x: float, y: float) -> str:
    """A name beside a mark, on the side where there is room."""
    left = x > 0.7 * WIDTH
    return (
        f'<text x="{x - 10 if left else x + 10:g}" y="{y + 4:g}" text-anchor="{"end" if left else "start"}">'
        f"{escape(text)}</text>"
    )


def svg(height: float, label: str, parts: Sequence[str], width: float = WIDTH) -> str:
    """The frame of a drawing; `label` says what is to be seen to whoever cannot see it."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
