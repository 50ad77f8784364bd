"""Drawings of reports: how trials fared rung by rung, and what the values of a setting are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from optimize.reporting.drawing import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis, Dot, grid_x, grid_y, mark, nice_ticks, svg

_SMALL = 300
"""Width of a small drawing."""

_LETTER, _TURNED = 7.0, 11
"""Width of a letter, about; letters of a turned name."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A trial rung by rung.

    Attributes:
        label: Whose it is.
        kind: `winner` or `trial`: the CSS class.
        points: Questions asked so far, and the value after them; at least one.
        whole: Whether it was asked all questions; else it ended early.
        spread: Half the length of the error bar at each point; empty for none.
    """

    label: str
    kind: str
    points: tuple[tuple[int, float], ...]
    whole: bool
    spread: tuple[float, ...] = ()


def rung_chart(curves: Sequence[Curve], rungs: Sequence[int], unit: str, label: str) -> str:
    """Curves over the number of questions, with a line at 0; a hollow end is one that was not asked all.

    Args:
        curves: At least one.
        rungs: Numbers of questions, evenly spaced from 0 to all of them.
        unit: What is drawn.
        label: What is to be seen.
    """
    height = 320
    x = Axis(rungs, LEFT, WIDTH - RIGHT)
    ends = [0.0]
    for curve in curves:
        spread = curve.spread or (0.0,) * len(curve.points)
        ends += [value + sign * half for (_, value), half in zip(curve.points, spread, strict=True) for sign in (-1, 1)]
    y = Axis(nice_ticks(min(ends), max(ends)), height - BOTTOM, TOP)
    parts = grid_x(x, height, "questions asked") + grid_y(y, unit)
    parts.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0)}" y2="{y(0)}"/>')
    parts += [_curve(curve, x, y) for curve in sorted(curves, key=lambda curve: curve.kind == "winner")]
    parts.append(
        f'<g class="baseline"><text x="{WIDTH - RIGHT - 2}" y="{y(0) - 5:g}" text-anchor="end">baseline</text></g>'
    )
    return svg(height, label, parts)


def _curve(curve: Curve, x: Axis, y: Axis) -> str:
    path = "".join(f"{'L' if n else 'M'}{x(asked)} {y(value)}" for n, (asked, value) in enumerate(curve.points))
    bars = "".join(
        f'<line class="error" x1="{x(asked)}" x2="{x(asked)}" y1="{y(value - half)}" y2="{y(value + half)}"/>'
        for (asked, value), half in zip(curve.points, curve.spread, strict=False)
    )
    asked, value = curve.points[-1]
    told = f"{curve.label}: {value:+.3f} after {asked} questions" + ("" if curve.whole else ", ended early")
    end = mark(curve.kind, x(asked), y(value), told, hollow=not curve.whole)
    # Above the end, and not beyond the drawing's.
    anchor, shift = ("end", RIGHT - 4) if x(asked) > 0.85 * WIDTH else ("middle", 0)
    at = f'x="{x(asked) + shift:g}" y="{y(value) - 12:g}" text-anchor="{anchor}"'
    above = f"<text {at}>{escape(curve.label)}</text>"
    name = above if curve.kind == "winner" else ""
    return f'<g class="{curve.kind}"><path class="curve" d="{path}"/>{bars}{end}{name}</g>'


def gain_chart(title: str, gains: Sequence[Dot], low: float, high: float, joined: bool) -> str:
    """The values of a setting from left to right, each with its interval.

    Args:
        title: The setting.
        gains: Its values.
        low: Where the vertical axis begins: the same for all settings, so that they can be compared.
        high: Where it ends.
        joined: Whether the values are numbers, so that a line between them makes sense.
    """
    left, right = 52, 12
    room = (_SMALL - left - right) / len(gains)
    turned = any(_LETTER * len(gain.label) > room for gain in gains)
    height = 236 if turned else 178
    y = Axis(nice_ticks(low, high, most=5), 148, 34)
    at = [round(left + room * (place + 0.5), 1) for place in range(len(gains))]
    parts = [f'<text class="title" x="4" y="16">{escape(title)}</text>', *grid_y(y, "", _SMALL - right, left)]
    parts.append(f'<line class="zero" x1="{left}" x2="{_SMALL - right}" y1="{y(0)}" y2="{y(0)}"/>')
    if joined:
        path = "".join(
            f"{'L' if n else 'M'}{x} {y(gain.value)}" for n, (x, gain) in enumerate(zip(at, gains, strict=True))
        )
        parts.append(f'<g class="trial"><path class="curve" d="{path}"/></g>')
    for x, gain in zip(at, gains, strict=True):
        told = f"{gain.label}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        parts.append(
            f'<g class="{gain.kind}"><line class="whisker" x1="{x}" x2="{x}" y1="{y(gain.low)}" y2="{y(gain.high)}"/>'
            f"{mark(gain.kind, x, y(gain.value), told)}</g>{_name(gain.label, x, turned)}"
        )
    told = ", ".join(f"{gain.label} {gain.value:+.3f}" for gain in gains)
    return svg(height, f"What the values of {title} are worth: {told}", parts, _SMALL)


def _name(name: str, x: float, turned: bool) -> str:
    """A value's name below its mark; names that are wider than their room are turned and lose their middle."""
    if not turned:
        return f'<text class="name" x="{x}" y="168" text-anchor="middle">{escape(name)}</text>'
    short = name if len(name) <= _TURNED else f"{name[: _TURNED // 2]}…{name[-_TURNED // 2 :]}"
    return (
        f'<text class="name" transform="translate({x + 4:g} 166) rotate(-40)" text-anchor="end">{escape(short)}</text>'
    )
