"""A report page as one HTML file that needs no network: style and drawings are inside, and there is no script."""

from __future__ import annotations

import re
from html import escape

from optimize.reporting import blocks
from optimize.reporting.style import STYLE

_TONES = ("better", "worse", "void")
"""Verdicts that have a colour of their own."""

_FIT = 3
"""Tables of so many columns fit a phone when their texts may wrap; wider ones are scrolled."""

_NUMBER = re.compile(r"[-+]?\d")

_FEW_SECTIONS = 4
"""Up to so many sections a page needs no contents."""


def html(page: blocks.Page) -> str:
    """The page as one file; everything that comes from data is escaped."""
    detail = page.detail[:1].upper() + page.detail[1:]
    tone = page.word if page.word in _TONES else "open"
    about = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in page.about)
    body = [
        f"<h1>{escape(page.title)}</h1>",
        f'<div class="verdict {tone}"><b>{escape(page.word.capitalize())}</b><p>{escape(detail)}</p></div>',
        _figures(page.figures),
        _warnings(page.warnings),
        f"<dl>{about}</dl>",
        _contents(page.sections),
        *map(_section, page.sections),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Browsers ask for an icon unless the page says that it has none.
        f'<link rel="icon" href="data:,"><title>{escape(page.title)}</title><style>{STYLE}</style></head>\n'
        '<body><a class="skip" href="#main">Skip to the report</a><main id="main" tabindex="-1">\n'
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _figures(figures: tuple[blocks.Figure, ...]) -> str:
    if not figures:
        return ""
    tiles = "".join(
        f"<div><dt>{escape(f.name)}</dt><dd><b>{escape(f.value)}</b>"
        f"{f'<small>{escape(f.note)}</small>' if f.note else ''}</dd></div>"
        for f in figures
    )
    return f'<dl class="figures">{tiles}</dl>'


def _warnings(warnings: tuple[str, ...]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="verdict open warnings"><b>Warnings</b><ul>{items}</ul></div>'


def _contents(sections: tuple[blocks.Section, ...]) -> str:
    if len(sections) <= _FEW_SECTIONS:
        return ""
    items = "".join(f'<li><a href="#{_slug(s.title)}">{escape(s.title)}</a></li>' for s in sections)
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>'


def _slug(title: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def _section(section: blocks.Section) -> str:
    slug = _slug(section.title)
    inner = "".join(_block(block, section.title) for block in section.blocks)
    return f'<section aria-labelledby="{slug}"><h2 id="{slug}">{escape(section.title)}</h2>{inner}</section>'


def _block(block: blocks.Block, within: str) -> str:
    """A block; `within` is the heading that it stands under."""
    match block:
        case blocks.Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case blocks.Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case blocks.Code(text):
            return f"<pre {_region(within)}><code>{escape(text)}</code></pre>"
        case blocks.Table():
            return _table(block, within)
        case blocks.Chart():
            return _chart(block, within)
        case blocks.Case():
            return _case(block)
        case blocks.Diff(name, lines):
            changed = "".join(_line(*line) for line in lines)
            return f'<pre class="diff" role="group" aria-label="{escape(name)}">{changed}</pre>'
        case blocks.Fold(summary, inner):
            folded = "".join(_block(one, summary) for one in inner)
            return f"<details><summary>{escape(summary)}</summary>{folded}</details>"


def _region(name: str) -> str:
    """What makes a part that may be wider than the page reachable by keyboard, and says what it is."""
    return f'tabindex="0" role="region" aria-label="{escape(name)}"'


def _chart(chart: blocks.Chart, within: str) -> str:
    table = chart.table
    numbers = "" if table is None else _block(blocks.Fold("The numbers as a table", (table,)), within)
    told = f'<div class="beside"><figcaption>{escape(chart.caption)}</figcaption>{numbers}</div>'
    kind = {1: "chart", 2: "charts pair"}.get(len(chart.svgs), "charts")
    wide = ' class="wide"' if len(chart.svgs) == 1 else ""
    return f'<figure{wide}><div class="{kind}">{"".join(chart.svgs)}</div>{told}</figure>'


def _table(table: blocks.Table, within: str) -> str:
    def cells(row: tuple[str, ...], head: bool) -> str:
        found = []
        for column, cell in enumerate(row):
            is_number = column in table.numeric and not head and _NUMBER.match(cell) is not None
            kind = ' class="num whole"' if is_number else ' class="num"' if column in table.numeric else ""
            tag, scope = ("th", ' scope="col"') if head else ("th", ' scope="row"') if not column else ("td", "")
            if head and not cell:
                # A header without a word in it is no header.
                tag, scope = "td", ""
            # A number is broken before its interval and nowhere else.
            text = cell.replace(" ", "\xa0").replace("\xa0[", " [") if is_number else cell
            found.append(f"<{tag}{scope}{kind}>{escape(text)}</{tag}>")
        return "".join(found)

    marks = [' class="marked"' if n in table.marked else "" for n in range(len(table.rows))]
    rows = [f"<tr{mark}>{cells(row, False)}</tr>" for mark, row in zip(marks, table.rows, strict=True)]
    content = f"<thead><tr>{cells(table.header, True)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    if len(table.header) <= _FIT:
        return f'<div class="fit"><table>{content}</table></div>'
    return f'<div class="scroll" {_region(table.name or f"{within}, table")}><table>{content}</table></div>'


def _case(case: blocks.Case) -> str:
    sides = "".join(_side(side, case.is_open) for side in case.sides)
    return (
        f'<div class="case"><p><b>{escape(case.question)}</b></p><p class="gold">Gold: {escape(case.gold)}</p>'
        f'<div class="sides">{sides}</div></div>'
    )


def _side(side: blocks.Side, is_open: bool) -> str:
    remark = f'<p class="remark">{escape(side.remark)}</p>' if side.remark else ""
    passages = "".join(map(_excerpt, side.passages))
    shown, every = len(side.passages), len(side.passages) + side.left_out
    many = f"{shown} of {every}" if side.left_out else str(shown)
    title = f"{many} passage{'s' if every != 1 else ''} shown to the LM"
    opened = " open" if is_open else ""
    read = f"<details{opened}><summary>{title}</summary>{passages}</details>" if passages else ""
    head = f'<p class="side">{escape(side.name)} <span>{escape(side.score)}</span></p>'
    return f"<div>{head}<p>{escape(side.answer)}</p>{remark}{read}</div>"


def _excerpt(excerpt: blocks.Excerpt) -> str:
    text = "".join(f"<mark>{escape(part)}</mark>" if gold else escape(part) for part, gold in excerpt.parts)
    return f"<blockquote><cite>{escape(excerpt.source)}</cite><p>{text}</p></blockquote>"


def _line(change: blocks.Change, text: str) -> str:
    tag = {"added": "ins", "removed": "del"}.get(change, "span")
    return f'<{tag} class="{change}">{blocks.SIGNS[change]} {escape(text)}\n</{tag}>'
