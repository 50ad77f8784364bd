"""Draw the pictures of docs/search.md and docs/verdict.md, from simulated studies whose truth is known.

Run: uv run python -m benchmarks.doc_pictures; half a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from optimize.inference.statistics import PairedDifference, judge, paired_difference
from optimize.reporting.headline import probability
from optimize.searching.point import Point
from optimize.searching.search import Search
from programs.config import PipelineConfig
from tests.simulated import BASELINE, CLONES, SimulatedBench

DOCS = Path(__file__).resolve().parent.parent / "docs"

STYLE = """
svg{--paper:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d9dee4;--blue:#0b62c4;--pale:#9dbbe0;--brown:#8a5a00;
--green:#116b35;--red:#b3261e;font:13px system-ui,-apple-system,"Segoe UI",sans-serif}
@media(prefers-color-scheme:dark){svg{--paper:#14171b;--ink:#e7eaee;--soft:#a3adb8;--line:#363d46;--blue:#6fb4ff;
--pale:#3d5a80;--brown:#e2ad55;--green:#5fcf8a;--red:#ff8a80}}
.paper{fill:var(--paper)}text{fill:var(--soft)}.ink{fill:var(--ink)}.strong{fill:var(--ink);font-weight:600}
.grid{stroke:var(--line)}.asked{fill:var(--pale)}.lead{fill:var(--blue)}.now{fill:none;stroke:var(--blue);stroke-width:2}
.raw{fill:none;stroke:var(--brown);stroke-width:1.5;stroke-dasharray:4 3}.rawtext{fill:var(--brown)}
.band{fill:var(--blue);opacity:.18}.line{fill:none;stroke:var(--blue);stroke-width:2}.linetext{fill:var(--blue)}
.true{fill:none;stroke:var(--green);stroke-width:1.5}.truetext{fill:var(--green)}
.zero{stroke:var(--soft);stroke-width:1.5}.small{fill:var(--line);opacity:.45}
.better{stroke:var(--green);fill:var(--green)}.worse{stroke:var(--red);fill:var(--red)}
.not{stroke:var(--blue);fill:var(--blue)}.under{stroke:var(--brown);fill:var(--brown)}
.whisker{stroke-width:3;stroke-linecap:round;opacity:.6}
"""

CHUNKS = {64: 0.0, 96: 0.05, 128: 0.15, 192: 0.1, 256: 0.0}
PASSAGES = {1: 0.0, 2: 0.08, 3: 0.1, 4: 0.04, 5: -0.05, 6: -0.12}
MEAN, CALLS, SEED = 0.3, 400, 3


def effect(config: PipelineConfig, candidate: str = "") -> float:
    """What a setting adds to the mean score; the baseline's adds nothing."""
    return CHUNKS.get(config.chunk_size, -0.1) + PASSAGES[config.top_k]


@dataclass(frozen=True)
class Step:
    """What one step asked, and what was believed after it.

    Attributes:
        asked: Whom.
        leader: Who was believed best afterwards.
        estimate: What was believed of the leader.
        spread: Standard deviation of that.
        raw: The leader's mean score on what it was asked.
    """

    asked: Point
    leader: Point
    estimate: float
    spread: float
    raw: float


def simulate() -> list[Step]:
    """One search over 30 pipelines of which each answers 32 questions with right or wrong."""
    steps: list[Step] = []

    def on_step(asked: Point, leader: Point) -> None:
        raw = leader.rows.mean()[0]
        steps.append(Step(asked, leader, *search.estimate(leader), raw))

    bench = SimulatedBench(SEED, effect, mean=MEAN, calls=CALLS)
    search = Search(bench, None, bench.examples["search"], ["bare"], on_step)
    search.begin(BASELINE, "bare")
    search.lay(CLONES)
    while search.step():
        pass
    return steps


def true(point: Point) -> float:
    """The score that a point was made with."""
    return MEAN + effect(point.config)


def search_picture(steps: Sequence[Step]) -> str:
    """Above, who is asked at each step; below, what is believed of the leader."""
    points = list({step.asked.key: step.asked for step in steps}.values())
    order = sorted(points, key=lambda point: (-true(point), point.unit))
    rows = {point.key: place for place, point in enumerate(order)}
    left, top, pitch, width = 150, 56, 15, 820
    cell = (width - left - 150) / len(steps)
    rung = min(len(point.rows.rows) for point in order)
    bottom = top + pitch * len(order)
    parts = [
        _text(
            16, 22, f"Who is asked: each square is {rung} questions to one pipeline; the line is the leader", "strong"
        ),
        _text(16, 44, "pipeline, best in truth first"),
        _text(width - 100, 44, "asked", anchor="end"),
        _text(width - 16, 44, "true score", anchor="end"),
    ]
    for point, place in ((point, rows[point.key]) for point in order):
        y = top + pitch * place
        name = f"{point.config.chunk_size} tokens x {point.config.top_k}"
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 150}" y1="{y + 7}" y2="{y + 7}"/>')
        parts.append(_text(16, y + 11, name, "ink" if place == 0 else ""))
        parts.append(_text(width - 100, y + 11, str(len(point.rows.rows)), anchor="end"))
        parts.append(_text(width - 16, y + 11, f"{true(point):.2f}", anchor="end"))
    for number, step in enumerate(steps):
        x, y = left + cell * number, top + pitch * rows[step.asked.key] + 1
        kind = "lead" if step.asked is step.leader else "asked"
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{cell - 1.5:.1f}" height="12" rx="2"/>')
    path = ""
    for number, step in enumerate(steps):
        y = top + pitch * (rows[step.leader.key] if step.leader.key in rows else len(order)) + 7
        path += f"{'M' if not path else 'L'}{left + cell * number:.1f} {y}H{left + cell * (number + 1):.1f}"
    parts.append(f'<path class="now" d="{path}" opacity=".55"/>')
    parts += _belief_panel(steps, left, bottom + 50, cell, width)
    return _svg(width, bottom + 50 + 200, "Which pipelines a simulated search asks, step by step", parts)


def _belief_panel(steps: Sequence[Step], left: float, top: float, cell: float, width: float) -> list[str]:
    low, high, height = 0.2, 0.9, 130

    def y(value: float) -> float:
        return round(top + 12 + height * (high - min(high, max(low, value))) / (high - low), 1)

    def x(number: float) -> float:
        return round(left + cell * (number + 0.5), 1)

    def line(values: Sequence[float]) -> str:
        return "M" + "L".join(f"{x(n)} {y(value)}" for n, value in enumerate(values))

    parts = [_text(16, top - 6, "What is believed of the leader", "strong")]
    for tick in (0.2, 0.4, 0.6, 0.8):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 150}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:.1f}", anchor="end"))
    ups = [f"{x(n)} {y(step.estimate + step.spread)}" for n, step in enumerate(steps)]
    downs = [f"{x(n)} {y(step.estimate - step.spread)}" for n, step in enumerate(steps)]
    parts.append(f'<path class="band" d="M{"L".join([*ups, *reversed(downs)])}Z"/>')
    parts.append(f'<path class="raw" d="{line([step.raw for step in steps])}"/>')
    parts.append(f'<path class="true" d="{line([true(step.leader) for step in steps])}"/>')
    parts.append(f'<path class="line" d="{line([step.estimate for step in steps])}"/>')
    for number in range(10, len(steps) + 1, 10):
        parts.append(_text(x(number - 1), top + height + 30, str(number), anchor="middle"))
    parts.append(_text((left + width - 150) / 2, top + height + 48, "step", anchor="middle"))
    return [*parts, *_legend(width - 140, top + 30)]


def _legend(x: float, y: float) -> list[str]:
    words = [
        ("line", "estimate ± 1 s.d."),
        ("raw", "score as it stands"),
        ("true", "true score"),
    ]
    found = []
    for place, (kind, word) in enumerate(words):
        at = y + 22 * place
        found.append(f'<path class="{kind}" d="M{x} {at - 4}H{x + 20}"/>')
        found.append(_text(x + 26, at, word, f"{kind}text"))
    return found


@dataclass(frozen=True)
class Case:
    """Some test, made up, with the difference that it really has.

    Attributes:
        kind: CSS class.
        effect: True difference.
        spread: Standard deviation of one question's difference.
        questions: How many there are.
        groups: From how many groups.
        wanted: What is looked for among the seeds: the verdict, and whether the interval leaves out 0.
        remark: What is to be seen.
    """

    kind: str
    effect: float
    spread: float
    questions: int
    groups: int
    wanted: tuple[str, bool]
    remark: str


CASES = (
    Case("better", 0.15, 0.3, 80, 20, ("better", True), "interval above 0, and the permutation test agrees"),
    Case("worse", -0.15, 0.3, 80, 20, ("worse", True), "interval below 0: keep what you have"),
    Case("not", 0.0, 0.15, 320, 80, ("not shown better", False), "0.05 would have shown, and it did not"),
    Case("under", 0.06, 0.4, 48, 14, ("underpowered", False), "too few questions: 0 is possible, and so is a lot"),
    Case("under", 0.25, 0.4, 12, 6, ("underpowered", True), "leaves out 0, but the permutation test disagrees"),
)
SMALLEST_EFFECT = 0.05


def draw_test(case: Case) -> PairedDifference:
    """The first simulated test that shows what the case is about."""
    for seed in range(2000):
        generator = np.random.default_rng(seed)
        groups = [n % case.groups for n in range(case.questions)]
        own = generator.normal(0, case.spread * 0.95, case.questions)
        common = generator.normal(0, case.spread * 0.31, case.groups)
        found = paired_difference(list(case.effect + own + common[groups]), groups)
        verdict = judge(found, SMALLEST_EFFECT)
        if (verdict, found.low > 0 or found.high < 0) == case.wanted:
            return found
    raise AssertionError(f"no test shows {case.wanted}")


def verdict_picture() -> str:
    """Five tests with their intervals."""
    width, left, right, top, pitch = 900, 190, 360, 62, 52
    low, high = -0.25, 0.7

    def x(value: float) -> float:
        return round(left + (width - left - right) * (min(high, max(low, value)) - low) / (high - low), 1)

    height = top + pitch * len(CASES) + 46
    bottom = height - 44
    parts = [
        _text(16, 22, "Winner minus baseline on the same test questions, 95 % interval", "strong"),
        f'<rect class="small" x="{x(-SMALLEST_EFFECT)}" width="{x(SMALLEST_EFFECT) - x(-SMALLEST_EFFECT):.1f}" '
        f'y="{top - 12}" height="{bottom - top + 12}"/>',
        _text(x(0), top - 18, "± smallest_effect", anchor="middle"),
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{top - 12}" y2="{bottom}"/>',
    ]
    for tick in (-0.2, 0.0, 0.2, 0.4, 0.6):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(_text(x(tick), bottom + 20, f"{tick:+.1f}" if tick else "0", anchor="middle"))
    for place, case in enumerate(CASES):
        y = top + pitch * place + 14
        d = draw_test(case)
        parts += [
            _text(16, y, judge(d, SMALLEST_EFFECT).capitalize(), "strong"),
            _text(16, y + 17, f"{d.n} questions, {d.clusters} groups"),
            f'<g class="{case.kind}"><line class="whisker" x1="{x(d.low)}" x2="{x(d.high)}" y1="{y + 4}" y2="{y + 4}"/>'
            f'<circle cx="{x(d.mean)}" cy="{y + 4}" r="5"/></g>',
            _text(
                width - right + 14, y, f"{d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}], {probability(d.p_value)}", "ink"
            ),
            _text(width - right + 14, y + 17, case.remark),
        ]
    return _svg(width, height, "Five tests with their intervals and verdicts", parts)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    classes = f' class="{kind}"' if kind else ""
    return f'<text{classes} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f'<style>{STYLE}</style>\n<rect class="paper" width="{width}" height="{height}"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    (DOCS / "search.svg").write_text(search_picture(simulate()), encoding="utf-8")
    (DOCS / "verdict.svg").write_text(verdict_picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
