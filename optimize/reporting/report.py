"""What a study leaves for people: a page to look at, the same to read as text, and a short form for the terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.dataset import Dataset
from optimize.evaluation.outcome import SCORED_ON, Entry, Outcome
from optimize.reporting.blocks import Code, Figure, Page, Paragraph, Section
from optimize.reporting.cases import cases
from optimize.reporting.cost import IN_USE, cost, use_of
from optimize.reporting.funnel import funnels, losses
from optimize.reporting.headline import (
    believed,
    duration,
    headline,
    is_known,
    money,
    signed,
    with_interval,
)
from optimize.reporting.html import html
from optimize.reporting.markdown import markdown
from optimize.reporting.prompt import prompts
from optimize.reporting.record import Record
from optimize.reporting.rungs import rungs
from optimize.reporting.scores import comparison, numbers_table, opponents, phases, settings_table
from optimize.reporting.terminal import render_table, verdict
from optimize.reporting.trade_offs import trade_offs
from optimize.reporting.trials import finalists, trials
from optimize.reporting.worth import worth
from optimize.runs.run_dir import RunDir

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHORT = 7
"""Numbers that the terminal shows as they are; below them, only what differs."""


def write_report(outcome: Outcome, run: RunDir, dataset: Dataset) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into the run folder.

    Args:
        outcome: What was found; phases that are still to come are left out.
        run: Holds the answers to the questions.
        dataset: The questions.

    Returns:
        The two files.
    """
    return write_page(build_page(Record(outcome, run, dataset)), run)


def write_page(page: Page, run: RunDir) -> tuple[Path, Path]:
    """Write a report page into the run folder in both formats; see `write_report`."""
    return run.write_text("report.html", html(page)), run.write_text("report.md", markdown(page))


def render_terminal(outcome: Outcome) -> RenderableType:
    """The verdict, the comparison with the settings that differ, the cost and the warnings, for `rich` to print."""
    from rich.console import Group
    from rich.text import Text

    said, spent, numbers = headline(outcome), outcome.spent, numbers_table(outcome)
    kept = [n for n, row in enumerate(numbers.rows) if n < _SHORT or len(set(row[1:])) > 1]
    cost = f"{spent.calls:,} LM calls ({spent.paid_calls:,} made), {money(spent.usd)}, {duration(spent.seconds)}"
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in outcome.warnings]
    tables = render_table(numbers, kept), render_table(settings_table(outcome))
    return Group("", verdict(said.word, said.sentence), "", *tables, "", Text(cost), *warnings)


def build_page(record: Record) -> Page:
    """The whole report; parts that the study has not reached yet say so or are left out."""
    outcome, study = record.outcome, record.study
    said, followed = headline(outcome), funnels(record)
    sections = [
        comparison(outcome),
        phases(outcome),
        losses(record, followed),
        cases(record, followed),
        prompts(record),
        trade_offs(outcome, study.tolerance, study.minimize[0] if study.minimize else "prompt_tokens"),
        worth(record),
        rungs(record),
        finalists(outcome),
        trials(outcome),
        cost(record),
        reproduction(record),
    ]
    return Page(
        title=f"{outcome.study}: what was found",
        about=tuple(_about(record)),
        word=said.word,
        detail=said.detail,
        warnings=(*outcome.warnings, *_lost(record)),
        sections=tuple(section for section in sections if section is not None),
        figures=tuple(_figures(record)),
    )


def _about(record: Record) -> Iterator[tuple[str, str]]:
    outcome, repeats = record.outcome, record.study.repeats
    yield "data set", f"{outcome.dataset} ({outcome.dataset_fingerprint})"
    yield "program", outcome.program
    yield "metric", f"{outcome.metric}, in [0, 1], higher is better"
    yield "language model", outcome.lm
    if repeats > 1:
        yield "repeats", f"{repeats} answers to every question; tokens and money a question are of all of them"
    yield "seed", str(outcome.seed)
    yield "study", f"{outcome.study}-{outcome.fingerprint}"
    if record.run.command:
        yield "command", f"ragwright {record.run.command}"


def _lost(record: Record) -> Iterator[str]:
    """What the report cannot say because something is gone."""
    if record.dataset is None:
        yield (
            f"the data set is no longer at {record.study.dataset} as the study saw it "
            f"({record.outcome.dataset_fingerprint}), so questions, passages and gold are not shown."
        )


def _figures(record: Record) -> Iterator[Figure]:
    """The few numbers that matter most: scores, difference, cost in use, cost of the study."""
    outcome = record.outcome
    base, new = opponents(outcome)
    sides = [("baseline", base), *([new] if new else [])]
    yield from (_score(name, entry, outcome.metric) for name, entry in sides)
    if (d := outcome.difference) is not None and outcome.verdict is not None and math.isfinite(d.low):
        yield Figure("difference", signed(d.mean), f"[{signed(d.low)}, {signed(d.high)}], {d.n} questions")
    uses = [(name, use_of(record, entry)) for name, entry in sides]
    tokens = "; ".join(f"{use['prompt tokens']} with the {name}" for name, use in uses[:-1])
    name, use = uses[-1]
    read = f"read with the {name}, {use['money']}" + (f"; {tokens}" if tokens else "")
    yield Figure(f"{IN_USE:,} questions", f"{use['prompt tokens']} tokens", read)
    spent = outcome.spent
    took = f"{money(spent.usd)}, {duration(spent.lm_seconds)} of the LM's time"
    yield Figure("the study", f"{spent.calls:,} calls", took)


def _score(name: str, entry: Entry, metric: str) -> Figure:
    """What an entry scores; of the search what is believed of it, since a trial may have been asked little."""
    phase = SCORED_ON[entry.phase]
    told = believed(entry) if phase == "search" and is_known(entry.estimate) else with_interval(entry)
    value, _, rest = told.partition(" ")
    kind = "estimate" if "±" in rest and phase == "search" else phase
    return Figure(name, value, f"{rest} {metric}, {kind}")


_AGAIN = "# the same study again; what is finished is read, not paid for again"
_UNKNOWN = "# the same study again, if `optimize` made it; a `sweep` or a `compile` goes on by its own command"


def reproduction(record: Record) -> Section:
    """What makes the study come out the same, and commands that go on from here."""
    outcome, run = record.outcome, record.run
    runs, place, name = _quoted(run.path.parent), _quoted(run.path), _quoted(Path(run.path.name))
    commands = [
        _AGAIN if run.command else _UNKNOWN,
        f"ragwright {run.command or 'optimize'} {_quoted(run.path / 'study.yaml')} --runs {runs}",
        "# this report, beside another study, and everything in MLflow",
        f"ragwright report {name} --runs {runs}",
        f"ragwright compare {name} OTHER-RUN --runs {runs}",
        f"ragwright ui {name} --runs {runs}",
        "# the trials in Optuna's own pages",
        f"uvx optuna-dashboard {_quoted(run.journal)}",
    ]
    if outcome.winner is not None:
        commands += ["# the winner at work", f'ragwright ask {place}/export "your question" --runs {runs}']
    told = (
        f"study.yaml in the run folder has every setting, defaults written out. Data ({outcome.dataset_fingerprint}) "
        f"and study ({outcome.fingerprint}) are named by fingerprints of their content; everything random is drawn "
        f"from seed {outcome.seed}. Where a response is cached the study comes out the same, row by row; another "
        "machine asks the LM anew, and an LM need not answer the same twice."
    )
    return Section("How to go on, and how to do it again", (Paragraph(told), Code("\n".join(commands))))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
