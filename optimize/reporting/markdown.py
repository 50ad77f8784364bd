"""A report page as Markdown."""

from __future__ import annotations

import re

from optimize.reporting import blocks

_SPECIAL = re.compile(r"([\\`*<>\[\]|~$&]|(?<!\w)_|_(?!\w))")
"""What may be markup; a `_` inside a word is none."""


def markdown(page: blocks.Page) -> str:
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


def _section(section: blocks.Section) -> str:
    return "\n".join([f"## {escape(section.title)}", "", *filter(None, map(_block, section.blocks))])


def _block(block: blocks.Block) -> str:
    match block:
        case blocks.Paragraph(text):
            return f"{escape(text)}\n"
        case blocks.Bullets(items):
            return "".join(f"- {escape(item)}\n" for item in items)
        case blocks.Code(text):
            return _fenced(text, "sh")
        case blocks.Table():
            return _table(block)
        case blocks.Chart(_, caption, table):
            return "" if table is None else f"{_table(table)}\n{escape(caption)}\n"
        case blocks.Case(question, gold, sides, _):
            return "\n".join([f"- **{escape(question)}** Gold: {escape(gold)}", *map(_side, sides)]) + "\n"
        case blocks.Diff(name, lines):
            text = "\n".join(f"{blocks.SIGNS[change]} {line}".rstrip() for change, line in lines)
            return f"{escape(name)}:\n\n{_fenced(text, 'diff')}"
        case blocks.Fold(summary, inner):
            # No heading: what follows the fold does not belong to it.
            return "\n".join([f"**{escape(summary)}:**\n", *filter(None, map(_block, inner))])


def _side(side: blocks.Side) -> str:
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


def _table(table: blocks.Table) -> str:
    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
    rows = [
        [f"**{cell}**" if n in table.marked and cell else cell for cell in map(escape, row)]
        for n, row in enumerate(table.rows)
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [[escape(h) for h in table.header], rule, *rows])
