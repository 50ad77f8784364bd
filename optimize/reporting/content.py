"""What the report says, from an outcome: written down once, so that no format has numbers of its own."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from optimize.reporting.blocks import Code, Figure, Page, Paragraph, Section
from optimize.reporting.cases import cases
from optimize.reporting.cost import IN_USE, cost, use_of
from optimize.reporting.funnel import funnels, losses
from optimize.reporting.headline import duration, headline, money, number, signed, with_interval
from optimize.reporting.prompt import prompts
from optimize.reporting.record import Record
from optimize.reporting.rungs import rungs
from optimize.reporting.scores import comparison, opponents, phases
from optimize.reporting.trade_offs import trade_offs
from optimize.reporting.trials import finalists, trials
from optimize.reporting.worth import worth


def build_page(record: Record) -> Page:
    """The whole report; parts that the study has not reached yet say so or are left out."""
    outcome, study = record.outcome, record.study
    said = headline(outcome)
    about = {
        "data set": f"{outcome.dataset} ({outcome.dataset_fingerprint})",
        "program": outcome.program,
        "metric": f"{outcome.metric}, in [0, 1], higher is better",
        "language model": outcome.lm,
        "seed": str(outcome.seed),
        "study": f"{outcome.study}-{outcome.fingerprint}",
    }
    followed = funnels(record)
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
        about=tuple(about.items()),
        word=said.word,
        detail=said.detail,
        warnings=outcome.warnings,
        sections=tuple(section for section in sections if section is not None),
        figures=tuple(_figures(record)),
    )


def _figures(record: Record) -> Iterator[Figure]:
    """The few numbers that matter most: scores, difference, cost in use, cost of the study."""
    outcome = record.outcome
    base, new = opponents(outcome)
    for name, entry in [("baseline", base), *([new] if new else [])]:
        interval = with_interval(entry).removeprefix(number(entry.summary.score)).strip()
        yield Figure(name, number(entry.summary.score), f"{interval} {outcome.metric}")
    if (d := outcome.difference) is not None and math.isfinite(d.low):
        yield Figure("difference", signed(d.mean), f"[{signed(d.low)}, {signed(d.high)}], {d.n} questions")
    entry = new[1] if new else base
    use = use_of(record, entry)
    yield Figure(f"{IN_USE:,} questions", f"{use['prompt tokens']} tokens", f"read by the LM; {use['money']}")
    spent = outcome.spent
    took = f"{money(spent.usd)}, {duration(spent.lm_seconds)} of the LM's time"
    yield Figure("the study", f"{spent.calls:,} calls", took)


def reproduction(record: Record) -> Section:
    """What makes the study come out the same, and commands that go on from here."""
    outcome, run = record.outcome, record.run
    runs, place, name = _quoted(run.path.parent), _quoted(run.path), _quoted(Path(run.path.name))
    commands = [
        "# the same study again; what is finished is read, not paid for again",
        f"ragwright optimize {_quoted(run.path / 'study.yaml')} --runs {runs}",
        "# this report, beside another study, and everything in MLflow",
        f"ragwright report {name} --runs {runs}",
        f"ragwright compare {name} OTHER-RUN --runs {runs}",
        f"ragwright ui {name} --runs {runs}",
        "# the trials in Optuna's own pages",
        f"uvx optuna-dashboard {_quoted(run.journal)}",
    ]
    if outcome.winner is not None:
        commands += [
            "# the winner at work",
            f'ragwright ask {place}/export "your question" --runs {runs}',
        ]
    told = (
        f"study.yaml in the run folder has every setting, defaults written out. Data ({outcome.dataset_fingerprint}) "
        f"and study ({outcome.fingerprint}) are named by fingerprints of their content; everything random is drawn "
        f"from seed {outcome.seed}. Where a response is cached the study comes out the same, row by row; another "
        "machine asks the LM anew, and an LM need not answer the same twice."
    )
    return Section("How to go on, and how to do it again", (Paragraph(told), Code("\n".join(commands))))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
