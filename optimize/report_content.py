"""What the report says, from an outcome: written down once, so that no format has numbers of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from optimize.dataset import Dataset
from optimize.evaluate import Row
from optimize.example import Example
from optimize.headline import duration, headline, money, number
from optimize.ledger import Ledger
from optimize.outcome import Entry, Outcome
from optimize.report_blocks import Block, Case, Code, Page, Paragraph, Section, Table
from optimize.report_scores import comparison, phases
from optimize.report_trade_offs import trade_offs
from optimize.report_trials import finalists, trials
from optimize.run_dir import RunDir
from optimize.run_records import gold_text
from optimize.study_config import load_study

CASES = 5
"""Most questions shown as won, and as lost."""


def build_page(outcome: Outcome, run: RunDir, dataset: Dataset) -> Page:
    """The whole report; parts that the study has not reached yet say so or are left out."""
    said = headline(outcome)
    about = {
        "data set": f"{outcome.dataset} ({outcome.dataset_fingerprint})",
        "program": outcome.program,
        "metric": f"{outcome.metric}, in [0, 1], higher is better",
        "language model": outcome.lm,
        "seed": str(outcome.seed),
        "study": f"{outcome.study}-{outcome.fingerprint}",
    }
    study = load_study(run.path / "study.yaml")
    sections = [
        comparison(outcome),
        phases(outcome),
        finalists(outcome),
        trade_offs(outcome, study.tolerance, study.minimize[0] if study.minimize else "prompt_tokens"),
        trials(outcome),
        cases(outcome, run, {example.id: example for example in dataset.examples}),
        cost(outcome),
        reproduction(outcome, run),
    ]
    return Page(
        title=f"{outcome.study}: what was found",
        about=tuple(about.items()),
        word=said.word,
        detail=said.detail,
        warnings=outcome.warnings,
        sections=tuple(section for section in sections if section is not None),
    )


def cases(outcome: Outcome, run: RunDir, examples: Mapping[str, Example]) -> Section | None:
    """Test questions on which the two differ most."""
    if outcome.test_baseline is None or outcome.test_winner is None:
        return None
    old, new = _rows(run, outcome.test_baseline), _rows(run, outcome.test_winner)
    gaps = {
        i: _score(new[i]) - _score(old[i]) for i in old if i in new and i in examples and _both_scored(old[i], new[i])
    }
    won = sorted((i for i in gaps if gaps[i] > 0), key=lambda i: -gaps[i])
    lost = sorted((i for i in gaps if gaps[i] < 0), key=lambda i: gaps[i])
    summary = f"Of {len(gaps)} test questions the winner does better on {len(won)}, worse on {len(lost)}."
    blocks: list[Block] = [Paragraph(summary)]
    for title, ids in (("Won most clearly:", won), ("Lost most clearly:", lost)):
        if ids:
            blocks.append(Paragraph(title))
            blocks += [_case(examples[i], old[i], new[i]) for i in ids[:CASES]]
    return Section("Questions won and lost", tuple(blocks))


def _rows(run: RunDir, entry: Entry) -> dict[str, Row]:
    evaluation = run.read_evaluation(entry.unit)
    return {row.example_id: row for row in evaluation.rows} if evaluation is not None else {}


def _both_scored(one: Row, other: Row) -> bool:
    return one.score is not None and other.score is not None


def _score(row: Row) -> float:
    assert row.score is not None, "failures are left out before"
    return row.score


def _case(example: Example, old: Row, new: Row) -> Case:
    gold = gold_text(example)
    answers = tuple(
        (name, row.answer or "(nothing)", number(_score(row), 2)) for name, row in (("baseline", old), ("winner", new))
    )
    return Case(example.question, gold, answers)


def cost(outcome: Outcome) -> Section:
    """What all of it took, and which language model took how much of it."""
    spent = outcome.spent
    rows = (
        ("LM calls", f"{spent.calls:,} of {spent.calls_allowed:,} allowed"),
        ("of these really made", f"{spent.paid_calls:,}"),
        ("prompt tokens", f"{spent.prompt_tokens:,}"),
        ("completion tokens", f"{spent.completion_tokens:,}"),
        ("money", money(spent.usd)),
        ("waiting for the LM", duration(spent.lm_seconds)),
        ("trials", str(len(outcome.trials))),
    )
    blocks: list[Block] = [Table(("", "in all"), rows, numeric=frozenset({1}))]
    if spent.by_role.by_role:
        blocks.append(_by_role(spent.by_role))
    return Section("What it cost", tuple(blocks))


_ROLES = {"task": "answering", "reflection": "writing instructions", "judge": "judging"}


def _by_role(ledger: Ledger) -> Table:
    rows = tuple(
        (_ROLES.get(role, role), f"{took.calls:,}", f"{took.tokens:,}", money(took.usd))
        for role, took in ledger.by_role.items()
    )
    return Table(("role", "LM calls", "tokens read and written", "money"), rows, numeric=frozenset({1, 2, 3}))


def reproduction(outcome: Outcome, run: RunDir) -> Section:
    """Commands that go on from here."""
    runs, place = _quoted(run.path.parent), _quoted(run.path)
    commands = [
        "# the same study again; what is finished is read, not paid for again",
        f"ragwright optimize {_quoted(run.path / 'study.yaml')} --runs {runs}",
        "# this report, and everything in MLflow",
        f"ragwright report {_quoted(Path(run.path.name))} --runs {runs}",
        f"ragwright ui --runs {runs}",
    ]
    if outcome.winner is not None:
        commands += [
            "# the winner at work",
            f'ragwright ask {place}/export "your question" --runs {runs}',
        ]
    return Section("How to go on, and how to do it again", (Code("\n".join(commands)),))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
