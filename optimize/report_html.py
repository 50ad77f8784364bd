"""A report page as one HTML file that needs no network: style and drawings are inside."""

from __future__ import annotations

from html import escape

from optimize.report_blocks import Block, Bullets, Case, Chart, Code, Page, Paragraph, Section, Table

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f7f9;--ink:#1b1f24;--soft:#57606a;--line:#d9dee4;
--winner:#0b62c4;--trial:#6c8ebf;--base:#8a5a00;--good:#116b35;--fair:#8a5a00;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2127;--ink:#e7eaee;--soft:#a3adb8;--line:#363d46;
--winner:#6fb4ff;--trial:#7f9ccb;--base:#e2ad55;--good:#5fcf8a;--fair:#e2ad55;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1200px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 12px}
h2{font-size:1.15rem;margin:40px 0 12px}p{margin:8px 0;max-width:75ch}
.verdict{border-left:6px solid var(--tone);background:var(--card);
padding:12px 16px;border-radius:4px;margin:12px 0 20px}
.verdict b{display:block;color:var(--tone);font-size:1.2rem}.verdict p{margin:4px 0 0}
.better{--tone:var(--good)}.worse,.void{--tone:var(--bad)}.open{--tone:var(--fair)}
.warnings{border-left-color:var(--fair)}.warnings ul{margin:4px 0;padding-left:20px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 16px;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:8px 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
th{color:var(--soft);font-weight:600}td:first-child{color:var(--soft)}
.fit th,.fit td{white-space:normal;overflow-wrap:anywhere}
@media(max-width:480px){table{font-size:.8rem}th,td{padding-right:8px}}
.num{text-align:right}tr.marked td{color:var(--winner);font-weight:600}
pre{background:var(--card);padding:12px;border-radius:4px;overflow-x:auto;font-size:.85rem;line-height:1.6}
figure{margin:8px 0 20px}figcaption{color:var(--soft);font-size:.875rem;max-width:75ch}
svg{display:block;width:100%;max-width:560px;height:auto;font-size:12px}
svg text{fill:var(--soft);paint-order:stroke;stroke:var(--paper);stroke-width:3px}
svg .name,svg .value{fill:var(--ink);font-size:13px}svg .value{font-weight:600}
.grid{stroke:var(--line);stroke-width:1}.whisker{stroke-width:3;stroke-linecap:round;opacity:.55}
.error{stroke:var(--trial);stroke-width:1.5;opacity:.55}.baseline .error{stroke:var(--base)}
.winner .error{stroke:var(--winner);stroke-width:2.5}.trial.faint{opacity:.4}
.baseline .whisker{stroke:var(--base)}.winner .whisker{stroke:var(--winner)}
.baseline .mark{fill:var(--base)}.winner .mark{fill:var(--winner)}.trial .mark{fill:var(--trial);opacity:.75}
.mark{stroke:var(--paper);stroke-width:1.5}svg .baseline text:not(.value){fill:var(--base)}
svg .winner text:not(.value){fill:var(--winner);font-weight:600}
.front{fill:none;stroke:var(--soft);stroke-width:1.5;stroke-dasharray:4 3}
.case{background:var(--card);border-radius:4px;padding:10px 14px;margin:8px 0;max-width:80ch}
.case p{margin:0 0 6px;font-weight:600}.case dd,.case p{overflow-wrap:anywhere}.case dl{gap:2px 12px}
"""

_TONES = {"better": "better", "worse": "worse", "void": "void"}


def html(page: Page) -> str:
    """The page as one file; everything that comes from data is escaped."""
    detail = page.detail[:1].upper() + page.detail[1:]
    tone = _TONES.get(page.word, "open")
    about = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in page.about)
    body = [
        f"<h1>{escape(page.title)}</h1>",
        f'<div class="verdict {tone}"><b>{escape(page.word.capitalize())}</b><p>{escape(detail)}</p></div>',
        _warnings(page.warnings),
        f"<dl>{about}</dl>",
        *map(_section, page.sections),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _warnings(warnings: tuple[str, ...]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="verdict open warnings"><b>Warnings</b><ul>{items}</ul></div>'


def _section(section: Section) -> str:
    return f"<section><h2>{escape(section.title)}</h2>{''.join(map(_block, section.blocks))}</section>"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Table():
            return _table(block)
        case Chart(svg, caption):
            return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        case Case():
            return _case(block)


def _table(table: Table) -> str:
    def cells(row: tuple[str, ...], tag: str) -> str:
        kinds = [' class="num"' if column in table.numeric else "" for column in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    marks = [' class="marked"' if n in table.marked else "" for n in range(len(table.rows))]
    rows = [f"<tr{mark}>{cells(row, 'td')}</tr>" for mark, row in zip(marks, table.rows, strict=True)]
    # Few columns fit a phone when their texts may wrap; many are scrolled.
    fit = ' class="fit"' if len(table.header) <= 4 else ""
    head = f"<thead><tr>{cells(table.header, 'th')}</tr></thead>"
    return f'<div class="scroll" tabindex="0"><table{fit}>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _case(case: Case) -> str:
    rows = [("gold", case.gold), *((f"{name} ({score})", answer) for name, answer, score in case.answers)]
    pairs = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in rows)
    return f'<div class="case"><p>{escape(case.question)}</p><dl>{pairs}</dl></div>'
