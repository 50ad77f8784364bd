"""What a screen says to people: a page to look at, the same as text, and a short form for the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.inference.statistics import judge
from optimize.reporting.blocks import Block, Bullets, Chart, Page, Paragraph, Section, Table
from optimize.reporting.charts import Mark, trade_off_chart
from optimize.reporting.headline import finite, gap_text, interval, number
from optimize.reporting.html import html
from optimize.reporting.markdown import markdown
from optimize.reporting.settings import describe as describe_config
from optimize.reporting.settings import setting_text
from optimize.reporting.terminal import render_table
from optimize.reporting.terminal import verdict as in_colour
from optimize.runs.run_dir import write_whole
from optimize.screening.points import Point
from optimize.screening.screen import Screened, Worth

if TYPE_CHECKING:
    from rich.console import RenderableType

_NO_EFFECT = "no effect here"


def write_screen(screened: Screened, name: str, smallest_effect: float) -> Path:
    """Write `screen.html`, `screen.md` and `screen.json` into the screen's folder; returns the first."""
    page = build_page(screened, name, smallest_effect)
    write_whole(screened.folder / "screen.md", markdown(page))
    write_whole(screened.folder / "screen.json", json.dumps(as_json(screened), indent=1) + "\n")
    return write_whole(screened.folder / "screen.html", html(page))


def build_page(screened: Screened, name: str, smallest_effect: float) -> Page:
    """The whole report."""
    word, detail = verdict(screened, smallest_effect)
    return Page(
        title=f"Retrieval screen of {name}",
        about=(
            ("measure", screened.measure),
            ("questions", f"{screened.scored} of validation with evidence{_unscored(screened)}"),
            ("configurations", f"{len(screened.points)}, without any LM call; vectors searched exactly"),
        ),
        word=word,
        detail=detail,
        sections=(
            Section("Quality against context", (_chart(screened), front_table(screened))),
            Section("What each setting is worth", (Paragraph(_worth_note(screened)), worth_table(screened))),
            Section("Left to the search", (_left(screened),)),
        ),
    )


def verdict(screened: Screened, smallest_effect: float) -> tuple[str, str]:
    """A word, and the sentence about the pick and the baseline on unseen questions."""
    check = screened.check
    if check is None:
        return "not checked", (
            "no training question has evidence, so the pick could not be checked on questions that the screen has "
            "not seen."
        )
    base, pick, d = check.baseline, check.pick, check.difference
    return judge(d, smallest_effect), (
        f"on {d.n} training questions that the screen did not see, the pick's {screened.measure} is "
        f"{number(pick.quality)} at {pick.tokens:.0f} context tokens, the baseline's {number(base.quality)} at "
        f"{base.tokens:.0f}: a difference of {gap_text(d)}."
    )


def render_terminal(screened: Screened, smallest_effect: float) -> RenderableType:
    """Verdict, front and worth for `rich` to print."""
    from rich.console import Group
    from rich.text import Text

    word, detail = verdict(screened, smallest_effect)
    left = [Text(f"left to the search: {line}", style="dim") for line in screened.left]
    if screened.unscored:
        left.insert(0, Text(f"not scored: {screened.unscored} validation questions have no evidence", style="yellow"))
    return Group(
        "",
        in_colour(word, f"{word.capitalize()}: {detail}"),
        "",
        Text("The front: no other configuration beats these in quality, context tokens and latency at once."),
        render_table(front_table(screened)),
        Text(_worth_note(screened)),
        render_table(worth_table(screened)),
        *left,
    )


def front_table(screened: Screened) -> Table:
    """The front by rising context tokens, with the baseline; the pick is marked."""
    points = list(screened.front)
    if screened.baseline not in points:
        points = sorted([*points, screened.baseline], key=lambda point: point.tokens)
    names = (screened.measure, "tokens", "ms", "complete", "precision", "", "configuration")
    rows = [_front_row(point, screened) for point in points]
    marked = frozenset(n for n, point in enumerate(points) if point == screened.pick)
    return Table(names, tuple(rows), numeric=frozenset({0, 1, 2, 3, 4}), marked=marked)


def _front_row(point: Point, screened: Screened) -> tuple[str, ...]:
    kind = "pick" if point == screened.pick else "baseline" if point == screened.baseline else ""
    return (
        f"{number(point.quality)} ± {number(point.stderr)}",
        f"{point.tokens:.0f}",
        f"{point.latency_ms:.1f}",
        number(point.measures["gold_in_context"]),
        number(point.measures["span_precision"]),
        kind,
        describe(point),
    )


def describe(point: Point) -> str:
    """A configuration in a few words: what has its usual value is not said."""
    return describe_config(point.config)


def worth_table(screened: Screened) -> Table:
    """Every other value of every setting, and what it would change."""
    rows = [_worth_row(worth) for worth in screened.worth]
    header = ("setting", "instead", f"{screened.measure} (95 % interval)", "tokens")
    return Table(header, tuple(rows), numeric=frozenset({2, 3}))


def _worth_row(worth: Worth) -> tuple[str, ...]:
    value = setting_text(worth.value)
    if worth.difference is None:
        return (worth.name, value, _NO_EFFECT, "")
    return (worth.name, value, interval(worth.difference), f"{worth.tokens:+.0f}")


def _worth_note(screened: Screened) -> str:
    return (
        f"One setting of the pick ({describe(screened.pick)}) changed at a time, on the same {screened.scored} "
        "questions; the intervals are not adjusted for how many there are."
    )


def _chart(screened: Screened) -> Block:
    marks = [
        Mark(p.tokens, p.quality, kind, _title(p), name={"winner": "pick", "baseline": "baseline"}.get(kind, ""))
        for p in screened.points
        for kind in [_kind(p, screened)]
    ]
    label = f"{screened.measure} against context tokens for {len(marks)} configurations"
    svg = trade_off_chart(marks, "context tokens a question", screened.measure, label)
    caption = (
        f"Each point is a configuration on {screened.scored} validation questions. The line is the best to be had for "
        "so many tokens; the table counts latency, too."
    )
    return Chart((svg,), caption)


def _kind(point: Point, screened: Screened) -> str:
    if point == screened.pick:
        return "winner"
    return "baseline" if point == screened.baseline else "trial"


def _title(point: Point) -> str:
    return f"{point.quality:.3f} ± {point.stderr:.3f}, {point.tokens:.0f} tokens; {describe(point)}"


def _left(screened: Screened) -> Block:
    return Bullets(screened.left) if screened.left else Paragraph("Nothing: every setting could be screened.")


def _unscored(screened: Screened) -> str:
    return f"; {screened.unscored} have none and are not scored" if screened.unscored else ""


def as_json(screened: Screened) -> dict[str, Any]:
    """What was found, for machines."""
    check = screened.check
    content = {
        "measure": screened.measure,
        "questions": screened.scored,
        "unscored": screened.unscored,
        "max_tokens": screened.max_tokens,
        "baseline": _point_json(screened.baseline),
        "pick": _point_json(screened.pick),
        "front": list(map(_point_json, screened.front)),
        "points": list(map(_point_json, screened.points)),
        "worth": [asdict(worth) for worth in screened.worth],
        "shortlist": screened.shortlist,
        "check": check
        and {
            "baseline": _point_json(check.baseline),
            "pick": _point_json(check.pick),
            "difference": asdict(check.difference),
        },
        "left": screened.left,
        "seconds": screened.seconds,
    }
    return dict(finite(content))


def _point_json(point: Point) -> dict[str, Any]:
    content = point.as_json()
    del content["scores"]
    return content
