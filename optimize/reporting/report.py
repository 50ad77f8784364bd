"""What a study leaves for people: a page to look at, the same to read as text, and a short form for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.dataset import Dataset
from optimize.evaluation.outcome import Outcome
from optimize.reporting.blocks import Page, Table
from optimize.reporting.content import build_page
from optimize.reporting.headline import duration, headline, money
from optimize.reporting.html import html
from optimize.reporting.markdown import markdown
from optimize.reporting.record import Record
from optimize.reporting.scores import comparison
from optimize.reporting.terminal import render_table, verdict
from optimize.runs.run_dir import RunDir

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHORT = 7
"""Rows of the comparison that the terminal shows as they are; below them, only what differs."""


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

    said = headline(outcome)
    spent = outcome.spent
    cost = f"{spent.calls:,} LM calls ({spent.paid_calls:,} made), {money(spent.usd)}, {duration(spent.seconds)}"
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in outcome.warnings]
    return Group("", verdict(said.word, said.sentence), "", _comparison(outcome), "", Text(cost), *warnings)


def _comparison(outcome: Outcome) -> RenderableType:
    content = next(block for block in comparison(outcome).blocks if isinstance(block, Table))
    kept = [n for n, row in enumerate(content.rows) if n < _SHORT or len(set(row[1:])) > 1]
    return render_table(content, kept)
