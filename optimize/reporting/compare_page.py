"""What is said of several studies: a page of the same blocks as a report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence

from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.blocks import Block, Bullets, Chart, Code, Fold, Page, Paragraph, Section, Table
from optimize.reporting.charts import interval_chart
from optimize.reporting.compare import Between, Comparison, Studied
from optimize.reporting.cost import IN_USE, use_of
from optimize.reporting.drawing import Dot
from optimize.reporting.headline import (
    MISSING,
    duration,
    gap_text,
    headline,
    interval,
    money,
    probability,
    with_interval,
)
from optimize.reporting.settings import differing, setting_text, study_settings


def build_page(comparison: Comparison) -> Page:
    """The whole page."""
    word, detail = verdict(comparison)
    studies = comparison.studies
    sections = [
        _side_by_side(studies),
        _winners(comparison),
        _settings(studies),
        _studies(studies),
        _costs(studies),
        _onwards(studies),
    ]
    return Page(
        title=f"{len(studies)} studies beside each other",
        about=tuple((one.label, f"{headline(one.outcome).word}; {one.record.run.path.name}") for one in studies),
        word=word,
        detail=detail,
        warnings=comparison.obstacles,
        sections=tuple(section for section in sections if section is not None),
    )


def verdict(comparison: Comparison) -> tuple[str, str]:
    """A word, and a sentence without its capital."""
    if not comparison.between:
        return "not comparable", (
            "these studies' test scores cannot be set against each other (see the warnings); what each of them found "
            "by itself stands side by side below."
        )
    said = "; ".join(_said(one) for one in comparison.between)
    word = comparison.between[0].verdict if len(comparison.between) == 1 else "compared"
    rest = "" if comparison.is_whole else " Not all of them could be compared; the warnings say why."
    return word, f"{said}.{rest}"


def _said(one: Between) -> str:
    d = one.difference
    some = f"{d.n} test questions, {one.shared} of them asked of both"
    asked = f"the same {d.n} test questions" if one.shared == d.n else some
    return f"on {asked}, the winner of {one.other} scores {gap_text(d)} against that of {one.one}: {one.verdict}"


_ROWS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("verdict", lambda o: headline(o).word),
    ("data set", lambda o: f"{o.dataset} ({o.dataset_fingerprint})"),
    ("metric", lambda o: o.metric),
    ("winner on test", lambda o: _scored(o.test_winner)),
    ("baseline on test", lambda o: _scored(o.test_baseline)),
    ("winner minus baseline", lambda o: interval(o.difference) if o.difference and o.verdict else MISSING),
    ("test questions", lambda o: MISSING if o.test_winner is None else str(o.test_winner.summary.n)),
    ("looks at these test questions", lambda o: str(o.test_openings) if o.test_openings else MISSING),
    ("program", lambda o: o.program),
    ("language model", lambda o: o.lm),
    ("seed", lambda o: str(o.seed)),
    ("trials", lambda o: f"{len(o.trials):,}"),
    ("LM calls", lambda o: f"{o.spent.calls:,}"),
    ("money", lambda o: money(o.spent.usd)),
    ("time", lambda o: duration(o.spent.seconds)),
)


def _scored(entry: Entry | None) -> str:
    return MISSING if entry is None else with_interval(entry)


def _side_by_side(studies: Sequence[Studied]) -> Section:
    rows = tuple((name, *(of(one.outcome) for one in studies)) for name, of in _ROWS)
    blocks: list[Block] = [_table("", studies, rows)]
    if (chart := _gains(studies)) is not None:
        blocks.insert(0, chart)
    return Section("Side by side", tuple(blocks))


def _table(first: str, studies: Sequence[Studied], rows: tuple[tuple[str, ...], ...]) -> Table:
    return Table((first, *(one.label for one in studies)), rows, frozenset(range(1, 1 + len(studies))))


def _gains(studies: Sequence[Studied]) -> Chart | None:
    dots, scored_on = [], set()
    for one in studies:
        d, verdict = one.outcome.difference, one.outcome.verdict
        if d is not None and verdict is not None and math.isfinite(d.low):
            dots.append(Dot(one.label, d.mean, d.low, d.high, "winner" if verdict == "better" else "trial"))
            scored_on.add(one.scored_on)
    if not dots:
        return None
    caption = "What each study's winner gains over its own baseline on test, with its 95 % interval. " + (
        "A study's baseline is its own choice: look at the scores themselves, too."
        if len(scored_on) == 1
        else "These are of different questions or metrics: do not compare one with another."
    )
    return Chart((interval_chart(dots, "winner minus baseline, 95 % interval", zero=True),), caption)


def _winners(comparison: Comparison) -> Section | None:
    if not comparison.between:
        return None
    header = (
        *("winner of", "against that of", "difference (95 % interval)"),
        *("questions", "asked of both", "groups", "p", "adjusted p", "verdict"),
    )
    rows = tuple(_between(one) for one in comparison.between)
    told = (
        "Studies of different seeds or budgets draw different questions from one test split. Those asked of both are "
        "compared one by one; the others add the chance of which were drawn, and the interval has that. The adjusted p "
        "knows how many are compared (Holm 1979), and the verdict goes by it; an interval stands for itself. Choosing "
        "a study by this table is a choice on test questions: its score is then too high, and only new questions say "
        "what to expect."
    )
    return Section(
        "Winner against winner",
        (Table(header, rows, frozenset({2, 3, 4, 5, 6, 7}), name="Differences"), Paragraph(told)),
    )


def _between(one: Between) -> tuple[str, ...]:
    d = one.difference
    p, every = (probability(p).removeprefix("p ").removeprefix("= ") for p in (d.p_value, one.p_adjusted))
    return (one.other, one.one, interval(d), str(d.n), str(one.shared), str(d.clusters), p, every, one.verdict)


def _settings(studies: Sequence[Studied]) -> Section:
    found = differing([one.chosen.params for one in studies])
    title = "Settings of the winners that differ"
    if not found:
        return Section(title, (Paragraph("None: they chose the same."),))
    rows = tuple((name, *map(setting_text, values)) for name, values in found.items())
    kept = [one.label for one in studies if one.outcome.winner is None]
    about = [Paragraph(f"Of {', '.join(kept)} these are the baseline's: it has no winner.")] if kept else []
    return Section(title, (_table("setting", studies, rows), *about))


def _studies(studies: Sequence[Studied]) -> Section:
    found = differing([study_settings(one.record.run) for one in studies])
    title = "What the study files say differently"
    if not found:
        return Section(title, (Paragraph("Nothing: the same study, run twice."),))
    rows = tuple((name, *map(setting_text, values)) for name, values in found.items())
    table = _table("setting", studies, rows)
    return Section(title, (table,) if len(rows) <= 12 else (Fold(f"{len(rows)} settings", (table,)),))


def _costs(studies: Sequence[Studied]) -> Section:
    columns = [use_of(one.record, one.chosen) for one in studies]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    asked = ", ".join(f"{one.label} {one.chosen.summary.n}" for one in studies)
    told = f"What each study ends with, as recorded, scaled from the questions that it was asked ({asked})."
    return Section("What it costs in use", (_table(f"{IN_USE:,} questions", studies, rows), Paragraph(told)))


def _onwards(studies: Sequence[Studied]) -> Section:
    lines = [f"ragwright report {shlex.quote(str(one.record.run.path))}" for one in studies]
    said = tuple(f"{one.label}: {headline(one.outcome).sentence}" for one in studies)
    return Section("Each by itself", (Bullets(said), Code("\n".join(lines))))
