"""A report page in the terminal, for `rich` to print."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from optimize.reporting import blocks

if TYPE_CHECKING:
    from rich.console import RenderableType

TONES = {"better": "green", "worse": "red", "void": "red"}
"""Verdict -> colour; all others are yellow."""

_WIDEST = 8
"""Columns that fit a terminal; a wider table of few rows is turned on its side, one of many is left to the page."""

_LONGEST_TABLE = 24
_SHORT_PASSAGE = 160


def render_page(page: blocks.Page) -> RenderableType:
    """The whole page, but for what is folded away and what is too wide; the page itself has that."""
    from rich.console import Group
    from rich.text import Text

    warnings = [Text(f"warning: {warning}", style="yellow") for warning in page.warnings]
    parts: list[RenderableType] = ["", verdict(page.word, f"{page.word.capitalize()}: {page.detail}"), ""]
    if page.figures:
        parts += [_figures(page), ""]
    parts += [*(Text(f"{label:<15} {value}") for label, value in page.about), *warnings]
    return Group(*parts, *(part for section in page.sections for part in _section(section)))


def verdict(word: str, sentence: str) -> RenderableType:
    """The sentence in the colour of its verdict."""
    from rich.text import Text

    return Text(sentence, style=f"bold {TONES.get(word, 'yellow')}")


def render_table(table: blocks.Table, kept: Sequence[int] | None = None) -> RenderableType:
    """A table; `kept` names the rows that are shown, all by default."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, title in enumerate(table.header):
        # What a row is about stays whole on a narrow terminal, and nothing is cut off.
        justify: Literal["left", "right"] = "right" if column in table.numeric else "left"
        rich.add_column(title, justify=justify, no_wrap=column == 0, overflow="fold")
    for position, row in enumerate(table.rows):
        if kept is None or position in kept:
            rich.add_row(*map(Text, row), style="bold" if kept is None and position in table.marked else None)
    return rich


def _figures(page: blocks.Page) -> RenderableType:
    rows = tuple((figure.name, figure.value, figure.note) for figure in page.figures)
    return render_table(blocks.Table(("", "", ""), rows, numeric=frozenset({1})))


def _section(section: blocks.Section) -> Iterator[RenderableType]:
    from rich.text import Text

    yield ""
    yield Text(section.title, style="bold underline")
    for block in section.blocks:
        yield from _block(block)


def _block(block: blocks.Block) -> Iterator[RenderableType]:
    from rich.text import Text

    match block:
        case blocks.Paragraph(text):
            yield Text(text)
        case blocks.Bullets(items):
            yield from (Text(f"- {item}") for item in items)
        case blocks.Code(text):
            yield Text(text, style="cyan")
        case blocks.Table():
            yield _table(block)
        case blocks.Chart(_, caption, table):
            if table is not None:
                yield _table(table)
                yield Text(caption, style="dim")
        case blocks.Case():
            yield from _case(block)
        case blocks.Diff(name, lines):
            yield Text(name, style="bold")
            colours = {"added": "green", "removed": "red", "skipped": "dim", "same": ""}
            yield from (Text(f"{blocks.SIGNS[change]} {line}", style=colours[change]) for change, line in lines)
        case blocks.Fold(summary):
            yield Text(f"({summary}: see report.html)", style="dim")


def _table(table: blocks.Table) -> RenderableType:
    from rich.text import Text

    if len(table.header) > _WIDEST:
        if len(table.rows) >= _WIDEST:
            return Text(f"({len(table.rows)} rows of {len(table.header)} columns: see report.html)", style="dim")
        table = _turned(table)
    if len(table.rows) > _LONGEST_TABLE:
        shown = render_table(blocks.Table(table.header, table.rows[:_LONGEST_TABLE], table.numeric, table.marked))
        from rich.console import Group

        return Group(shown, Text(f"({len(table.rows) - _LONGEST_TABLE} more rows: see report.html)", style="dim"))
    return render_table(table)


def _turned(table: blocks.Table) -> blocks.Table:
    """Rows become columns."""
    every = [table.header, *table.rows]
    header, *rows = (tuple(row[column] for row in every) for column in range(len(table.header)))
    return blocks.Table(header, tuple(rows), frozenset(range(1, len(every))))


def _case(case: blocks.Case) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"\n{case.question}", style="bold")
    yield Text(f"  gold      {case.gold}")
    for side in case.sides:
        yield _side(side)


def _side(side: blocks.Side) -> RenderableType:
    from rich.text import Text

    text = Text(f"  {side.name:<9} {side.score}  {side.answer}")
    if side.remark:
        text.append(f"  ({side.remark})", style="dim")
    for passage in side.passages[:1]:
        text.append("\n            ").append(f"{passage.source}: ", style="dim")
        for part, gold in _shortened(passage):
            text.append(part, style="bold yellow" if gold else "dim")
    return text


def _shortened(excerpt: blocks.Excerpt) -> Iterator[tuple[str, bool]]:
    """As much of a passage as is around its first gold, on one line."""
    parts = [(re.sub(r"\s+", " ", text), gold) for text, gold in excerpt.parts]
    place = next((place for place, (_, gold) in enumerate(parts) if gold), None)
    if place is None:
        yield _cut("".join(text for text, _ in parts), _SHORT_PASSAGE), False
        return
    before = "".join(text for text, _ in parts[:place])
    after = "".join(text for text, _ in parts[place + 1 :])
    half = _SHORT_PASSAGE // 2
    yield before if len(before) <= half else f"…{before[-half:]}", False
    yield _cut(parts[place][0], _SHORT_PASSAGE), True
    yield _cut(after, half), False


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
