"""What a study leaves for people: a page to look at, the same to read as text, and a short form for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optimize.dataset import Dataset
from optimize.headline import duration, headline, money
from optimize.outcome import Outcome
from optimize.report_content import build_page
from optimize.report_html import html
from optimize.report_markdown import markdown
from optimize.report_scores import comparison
from optimize.run_dir import RunDir

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHORT = 7
"""Rows of the comparison that the terminal shows as they are; below them, only what differs."""

_TONES = {"better": "green", "worse": "red", "void": "red"}


def write_report(outcome: Outcome, run: RunDir, dataset: Dataset) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into the run folder.

    Args:
        outcome: What was found; phases that are still to come are left out.
        run: Holds the answers to the test questions.
        dataset: The questions.

    Returns:
        The two files.
    """
    page = build_page(outcome, run, dataset)
    return run.write_text("report.html", html(page)), run.write_text("report.md", markdown(page))


def render_terminal(outcome: Outcome) -> RenderableType:
    """The verdict, the comparison with the settings that differ, the cost and the warnings, for `rich` to print."""
    from rich.console import Group
    from rich.text import Text

    said = headline(outcome)
    tone = _TONES.get(said.word, "yellow")
    spent = outcome.spent
    cost = f"{spent.calls:,} LM calls ({spent.paid_calls:,} made), {money(spent.usd)}, {duration(spent.seconds)}"
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in outcome.warnings]
    return Group(
        "", Text(said.sentence, style=f"bold {tone}"), "", _comparison_table(outcome), "", Text(cost), *warnings
    )


def _comparison_table(outcome: Outcome) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from optimize.report_blocks import Table as Block

    content = next(block for block in comparison(outcome).blocks if isinstance(block, Block))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, title in enumerate(content.header):
        table.add_column(title, justify="right" if column in content.numeric else "left")
    for position, row in enumerate(content.rows):
        if position < _SHORT or len(set(row[1:])) > 1:
            table.add_row(*map(Text, row))
    return table
