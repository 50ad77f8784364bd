"""How report pages look: in light and dark, on a wide screen and on a phone, on paper."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f4f6f8;--ink:#1b1f24;--soft:#57606a;--line:#d9dee4;
--winner:#0b62c4;--trial:#6c8ebf;--base:#8a5a00;--good:#116b35;--fair:#8a5a00;--bad:#b3261e;
--gold:#fff0b8;--plus:#e3f5e8;--minus:#fdeaea;--shade:#9aa4af}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2127;--ink:#e7eaee;--soft:#a3adb8;--line:#363d46;
--winner:#6fb4ff;--trial:#7f9ccb;--base:#e2ad55;--good:#5fcf8a;--fair:#e2ad55;--bad:#ff8a80;
--gold:#5c4a00;--plus:#143422;--minus:#41191b;--shade:#5b6672}}
*{box-sizing:border-box}
html{scroll-padding-top:12px}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 16px 64px;outline:none}
a{color:var(--winner)}
:focus-visible{outline:3px solid var(--winner);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--paper);padding:8px 12px;z-index:1}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 12px;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:48px 0 12px;padding-top:16px;border-top:1px solid var(--line)}
p{margin:8px 0;max-width:75ch;overflow-wrap:anywhere}ul{padding-left:20px;max-width:75ch;overflow-wrap:anywhere}
.verdict{border-left:6px solid var(--tone);background:var(--card);
padding:12px 16px;border-radius:4px;margin:12px 0 20px}
.verdict b{display:block;color:var(--tone);font-size:1.2rem}.verdict p{margin:4px 0 0}
.better{--tone:var(--good)}.worse,.void{--tone:var(--bad)}.open{--tone:var(--fair)}
.warnings{border-left-color:var(--fair)}.warnings ul{margin:4px 0}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 16px;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.figures{grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 20px}
.figures div{border:1px solid var(--line);border-radius:4px;padding:10px 12px}
.figures b{display:block;font-size:1.3rem;line-height:1.3;font-variant-numeric:tabular-nums}
.figures small{color:var(--soft)}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:20px 0 0;max-width:none}
nav{font-size:.9rem}nav a{display:inline-block;padding:4px 0}
/* A shade at the right edge, for as long as there is more of the table behind it. */
.scroll{overflow-x:auto;margin:8px 0;background:linear-gradient(to left,var(--paper) 50%,transparent) 100% 0/48px 100%
no-repeat local,linear-gradient(to left,var(--shade),transparent) 100% 0/16px 100% no-repeat scroll}
/* Small tables stand beside each other where there is room. */
.fit{display:inline-block;vertical-align:top;max-width:100%;margin:8px 56px 8px 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;
font-weight:400;white-space:nowrap}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}tbody th{color:var(--soft)}
.scroll td:not(.num):nth-last-child(-n+2){white-space:normal;min-width:9em}
.scroll tbody th{position:sticky;left:0;background:var(--paper)}
.fit th,.fit td{white-space:normal;overflow-wrap:anywhere}.fit tbody th,.fit .whole{overflow-wrap:break-word}
.num{text-align:right}tr.marked td,tr.marked th{color:var(--winner);font-weight:600}
pre{background:var(--card);padding:12px;border-radius:4px;overflow-x:auto;font-size:.85rem;line-height:1.6}
.diff ins,.diff del,.diff span{display:block;text-decoration:none;white-space:pre-wrap;overflow-wrap:anywhere;
padding:0 6px 0 22px;text-indent:-16px;min-height:1.6em}
.diff .added{background:var(--plus)}.diff .removed{background:var(--minus)}.diff .skipped{color:var(--soft)}
details{margin:8px 0}summary{cursor:pointer;color:var(--winner);padding:4px 0;font-size:.9rem}
figure{margin:12px 0 24px}figcaption{color:var(--soft);font-size:.875rem;max-width:75ch;margin-top:6px}
svg{display:block;width:100%;height:auto;font-size:12.5px}
.chart svg{max-width:560px}.beside{min-width:0}
@media(min-width:900px){.wide{display:grid;grid-template-columns:minmax(0,560px) minmax(0,1fr);gap:0 36px;
align-items:center}}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:12px 24px}
.pair{grid-template-columns:repeat(auto-fit,minmax(min(400px,100%),1fr));align-items:end}
svg text{fill:var(--soft);paint-order:stroke;stroke:var(--paper);stroke-width:3px}
svg .name,svg .value{fill:var(--ink)}svg .value{font-weight:600}
svg .title{fill:var(--ink);font-weight:600;font-size:14px}
.grid{stroke:var(--line);stroke-width:1}.zero{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 3}
.whisker{stroke-width:3;stroke-linecap:round;opacity:.55}
.error{stroke:var(--trial);stroke-width:1.5;opacity:.55}.baseline .error{stroke:var(--base)}
.winner .error{stroke:var(--winner);stroke-width:2.5}.trial.faint{opacity:.6}
.trial .whisker{stroke:var(--trial)}.baseline .whisker{stroke:var(--base)}.winner .whisker{stroke:var(--winner)}
.baseline .mark{fill:var(--base)}.winner .mark{fill:var(--winner)}.trial .mark{fill:var(--trial)}
.mark{stroke:var(--paper);stroke-width:1.5}.mark.stopped{fill:var(--paper)!important;stroke:var(--trial);stroke-width:2}
.winner .mark.stopped{stroke:var(--winner)}
svg .baseline text:not(.value){fill:var(--base)}
svg .winner text:not(.value){fill:var(--winner);font-weight:600}
.front{fill:none;stroke:var(--soft);stroke-width:1.5;stroke-dasharray:4 3}
.curve{fill:none;stroke:var(--trial);stroke-width:1.25;opacity:.6}
.winner .curve{stroke:var(--winner);stroke-width:2.5;opacity:1}
.baseline .bar{fill:var(--base)}.winner .bar{fill:var(--winner)}.bar{stroke:none}
.case{background:var(--card);border-radius:4px;padding:12px 14px;margin:10px 0}
.case p{margin:0 0 4px}.case .gold{color:var(--soft);font-size:.9rem}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr));gap:8px 24px;margin-top:8px}
.sides>div{border-top:2px solid var(--line);padding-top:6px;min-width:0}
.side{color:var(--soft);font-size:.85rem}.side span{float:right;font-variant-numeric:tabular-nums;color:var(--ink)}
.remark{color:var(--soft);font-size:.85rem}
blockquote{margin:8px 0;padding-left:10px;border-left:3px solid var(--line);font-size:.875rem}
blockquote p{white-space:pre-line}cite{color:var(--soft);font-style:normal;font-size:.8rem;overflow-wrap:anywhere}
mark{background:var(--gold);color:inherit;padding:0 1px;font-weight:600}
@media(max-width:480px){h2{margin-top:36px}table{font-size:.8rem}th,td{padding-right:8px}
.fit{margin-right:0}pre{white-space:pre-wrap;overflow-wrap:anywhere}
.scroll tbody th{white-space:normal;min-width:80px}.scroll td:not(.num):nth-last-child(-n+2){white-space:nowrap}
.chart svg,.pair svg{font-size:14px}.figures div:last-child:nth-child(odd){grid-column:1/-1}
.figures{grid-template-columns:repeat(2,minmax(0,1fr))}.figures b{font-size:1.15rem}}
@media print{nav,.skip{display:none}.scroll,pre{overflow:visible}body{font-size:11pt}}
"""
