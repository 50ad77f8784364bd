"""The report's costs: what the study took, and what its programs would take in use."""

from __future__ import annotations

import math

from optimize.evaluation.ledger import Ledger
from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.blocks import Block, Paragraph, Section, Table
from optimize.reporting.headline import MISSING, duration, money, number
from optimize.reporting.record import Record
from optimize.reporting.scores import opponents

IN_USE = 1000
"""Questions that the cost in use is stated for."""

ROLES = {"task": "answering", "reflection": "writing instructions", "judge": "judging"}
"""What a language model is asked for."""


def cost(record: Record) -> Section:
    """What all of it took, which language model took how much of it, and what so many questions would take."""
    outcome = record.outcome
    blocks: list[Block] = [_in_use(record), _study(outcome)]
    if outcome.spent.by_role.by_role:
        blocks.append(_by_role(outcome.spent.by_role))
    return Section("What it costs", (*blocks, _about_use(record)))


def _in_use(record: Record) -> Table:
    new = opponents(record.outcome)[1]
    header = (f"{IN_USE:,} questions", "baseline", new[0]) if new else (f"{IN_USE:,} questions", "baseline")
    columns = [use_of(record, entry) for entry in _compared(record)]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    return Table(header, rows, frozenset({1, 2}), name=f"What {IN_USE:,} questions cost")


def use_of(record: Record, entry: Entry) -> dict[str, str]:
    """What so many questions would take with a configuration, as it was on those that it was asked.

    What is not known has a sign of its own.
    """
    s, rows = entry.summary, record.rows(entry).values()
    answers = sum(row.repeats for row in rows) or s.n
    scale = IN_USE / answers if answers else math.nan
    waited = sum(row.latency_s for row in rows) * scale
    return {
        "LM calls": number(s.calls * scale, 0),
        "prompt tokens": number(s.prompt_tokens * scale, 0),
        "completion tokens": number(s.completion_tokens * scale, 0),
        "waiting for the LM, one after another": duration(waited) if rows else MISSING,
        "money": money(None if s.usd is None else s.usd * scale),
    }


def _about_use(record: Record) -> Paragraph:
    asked = " and ".join(dict.fromkeys(str(entry.summary.n) for entry in _compared(record)))
    return Paragraph(
        f"{IN_USE:,} questions: as recorded on {asked}, scaled, each answered once and not judged. Cached answers "
        "count as they did the first time."
    )


def _compared(record: Record) -> list[Entry]:
    base, new = opponents(record.outcome)
    return [base, new[1]] if new else [base]


def _study(outcome: Outcome) -> Table:
    # The clock is told in the terminal; a page that named it would differ each time the same study is read again.
    spent = outcome.spent
    rows = (
        ("LM calls", f"{spent.calls:,} of {spent.calls_allowed:,} allowed"),
        ("of these really made", f"{spent.paid_calls:,}"),
        ("prompt tokens", f"{spent.prompt_tokens:,}"),
        ("completion tokens", f"{spent.completion_tokens:,}"),
        ("money", money(spent.usd)),
        ("waiting for the LM", duration(spent.lm_seconds)),
        ("trials", f"{len(outcome.trials):,}"),
    )
    return Table(("this study", "in all"), rows, frozenset({1}), name="What the study cost")


def _by_role(ledger: Ledger) -> Table:
    rows = tuple(
        (ROLES.get(role, role), f"{took.calls:,}", f"{took.tokens:,}", money(took.usd))
        for role, took in ledger.by_role.items()
    )
    return Table(("role", "LM calls", "tokens read and written", "money"), rows, frozenset({1, 2, 3}), name="By role")
