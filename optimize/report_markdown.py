"""A report page as Markdown."""

from __future__ import annotations

import re

from optimize.report_blocks import Block, Bullets, Case, Chart, Code, Page, Paragraph, Section, Table

_SPECIAL = re.compile(r"([\\`*<>\[\]|])")


def markdown(page: Page) -> str:
    """The page; texts of the data cannot become markup."""
    lines = [f"# {escape(page.title)}", "", f"**{escape(page.word.capitalize())}: {escape(page.detail)}**", ""]
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
            return f"```sh\n{text}\n```\n"
        case Table():
            return _table(block)
        case Chart():
            return ""
        case Case(question, gold, answers):
            lines = [f"- **{escape(question)}** Gold: {escape(gold)}"]
            lines += [f"  - {escape(name)} ({score}): {escape(answer)}" for name, answer, score in answers]
            return "\n".join(lines) + "\n"


def _table(table: Table) -> str:
    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
    rows = [
        [f"**{cell}**" if n in table.marked else cell for cell in map(escape, row)] for n, row in enumerate(table.rows)
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [[escape(h) for h in table.header], rule, *rows])
