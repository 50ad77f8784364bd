"""A report page as Markdown."""

from __future__ import annotations

import re

from optimize.reporting.blocks import (
    Block,
    Bullets,
    Case,
    Chart,
    Charts,
    Code,
    Diff,
    Fold,
    Page,
    Paragraph,
    Section,
    Side,
    Table,
)

_SPECIAL = re.compile(r"([\\`*<>\[\]|])")

SIGNS = {"same": " ", "added": "+", "removed": "-", "skipped": "@"}
"""What stands before a line that was changed so."""


def markdown(page: Page) -> str:
    """The page; texts of the data cannot become markup."""
    lines = [f"# {escape(page.title)}", "", f"**{escape(page.word.capitalize())}: {escape(page.detail)}**", ""]
    lines += [
        f"- {escape(figure.name)}: **{escape(figure.value)}**{f', {escape(figure.note)}' if figure.note else ''}"
        for figure in page.figures
    ]
    lines += [f"- {escape(label)}: {escape(value)}" for label, value in page.about]
    if page.warnings:
        lines += ["", "## Warnings", "", *(f"- {escape(warning)}" for warning in page.warnings)]
    return "\n".join([*lines, "", *map(_section, page.sections)])


def escape(text: str) -> str:
    """One line in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _section(section: Section) -> str:
    return "\n".join([f"## {escape(section.title)}", "", *filter(None, map(_block, section.blocks))])


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"{escape(text)}\n"
        case Bullets(items):
            return "".join(f"- {escape(item)}\n" for item in items)
        case Code(text):
            return _fenced(text, "sh")
        case Table():
            return _table(block)
        case Chart(_, caption, table) | Charts(_, caption, table):
            return "" if table is None else f"{_table(table)}\n{escape(caption)}\n"
        case Case(question, gold, sides, _):
            return "\n".join([f"- **{escape(question)}** Gold: {escape(gold)}", *map(_side, sides)]) + "\n"
        case Diff(name, lines):
            text = "\n".join(f"{SIGNS[change]} {line}".rstrip() for change, line in lines)
            return f"{escape(name)}:\n\n{_fenced(text, 'diff')}"
        case Fold(summary, blocks):
            return "\n".join([f"### {escape(summary)}", "", *filter(None, map(_block, blocks))])


def _side(side: Side) -> str:
    remark = f" ({escape(side.remark)})" if side.remark else ""
    lines = [f"  - {escape(side.name)} ({side.score}): {escape(side.answer)}{remark}"]
    for passage in side.passages:
        text = "".join(f"**{escape(part)}**" if gold else _spaced(part) for part, gold in passage.parts)
        lines.append(f"    - {escape(passage.source)}: {text}")
    if side.left_out:
        lines.append(f"    - and {side.left_out} more")
    return "\n".join(lines)


def _spaced(text: str) -> str:
    """A piece of a line, with the space that parts it from its neighbours."""
    before, after = " " if text[:1].isspace() else "", " " if text[-1:].isspace() else ""
    return f"{before}{escape(text)}{after}"


def _fenced(text: str, kind: str) -> str:
    """The text between fences longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{kind}\n{text}\n{fence}\n"


def _table(table: Table) -> str:
    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
    rows = [
        [f"**{cell}**" if n in table.marked and cell else cell for cell in map(escape, row)]
        for n, row in enumerate(table.rows)
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [[escape(h) for h in table.header], rule, *rows])
