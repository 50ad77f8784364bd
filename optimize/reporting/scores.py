"""The report's scores: baseline against winner, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from optimize.evaluation.outcome import SCORED_ON, Entry, Guard, Outcome
from optimize.reporting.blocks import Block, Chart, Fold, Paragraph, Section, Table
from optimize.reporting.charts import Dot, interval_chart
from optimize.reporting.headline import (
    MISSING,
    believed,
    is_known,
    number,
    per_question,
    probability,
    signed,
    with_error,
    with_interval,
)
from optimize.reporting.trials import optimism_text, trial_of


def comparison(outcome: Outcome) -> Section:
    """Baseline against winner, on the latest examples that both were scored on."""
    base, new = opponents(outcome)
    header = ("", "baseline", new[0]) if new else ("", "baseline")
    entries = [base, new[1]] if new else [base]
    every = list(_comparison_rows(outcome, entries))
    alike = [row for row in every if new and row[0] in base.params and len(set(row[1:])) == 1]
    rows = tuple(row for row in every if row not in alike)
    differ = frozenset(n for n, row in enumerate(rows) if new and row[0] in base.params)
    blocks: list[Block] = [Table(header, rows, numeric=frozenset({1, 2}), marked=differ)]
    if alike:
        same = Table(("setting", "both"), tuple((row[0], row[1] or "(none)") for row in alike), name="Equal settings")
        blocks.append(Fold(f"{len(alike)} settings are the same in both", (same,)))
    if (chart := _test_chart(outcome)) is not None:
        blocks.insert(0, chart)
    if outcome.difference is not None:
        d = outcome.difference
        blocks.append(
            Paragraph(
                f"Winner minus baseline on the same {d.n} questions: {signed(d.mean)}, 95 % interval {signed(d.low)} "
                f"to {signed(d.high)}, {probability(d.p_value)} by sign flips of {d.clusters} groups of questions. "
                f"A test of this size shows a true difference of {number(d.detectable)} with 80 % power."
            )
        )
        blocks.append(Paragraph(_openings(outcome.test_openings)))
    if outcome.guards:
        blocks += [Paragraph("Metrics that may not fall, on the same questions:"), _guards(outcome.guards)]
    return Section("Baseline and winner", tuple(blocks))


_STATES = {
    "held": "held: shown to have fallen by no more than allowed",
    "unknown": "not known: too few questions to tell",
    "fell": "fell: shown to have fallen by more than allowed",
}


def _guards(guards: Sequence[Guard]) -> Table:
    rows = tuple(
        (
            guard.metric,
            f"{guard.allowed:g}",
            f"{signed(guard.difference.mean)} [{signed(guard.difference.low)}, {signed(guard.difference.high)}]",
            str(guard.difference.n),
            _STATES[guard.state],
        )
        for guard in guards
    )
    header = ("guard", "may fall by", "winner minus baseline (95 % interval)", "questions", "")
    return Table(header, rows, numeric=frozenset({1, 2, 3}))


def _openings(count: int) -> str:
    if count <= 1:
        return "The test questions of this state of the data were opened once, for this verdict."
    return (
        f"The test questions of this state of the data have been opened {count} times, this time included. Each "
        "further look makes a chance find more likely; new questions would be a fresh test."
    )


def opponents(outcome: Outcome) -> tuple[Entry, tuple[str, Entry] | None]:
    """The baseline and what it is compared with, by name, on the latest examples that both were scored on."""
    if outcome.test_baseline is not None and outcome.test_winner is not None:
        return outcome.test_baseline, ("winner", outcome.test_winner)
    if outcome.winner is not None and outcome.finalists:
        return outcome.finalists[0], ("winner", outcome.winner)
    if outcome.kept_baseline and (others := outcome.finalists[1:]):
        return outcome.finalists[0], ("best other finalist", max(others, key=_standing))
    best = outcome.best_trial
    return outcome.baseline, ("best trial so far", best) if best is not None else None


def _standing(entry: Entry) -> tuple[float, float]:
    """What tells finalists apart: what is believed of them, then their score."""
    known = [
        value if value is not None and math.isfinite(value) else -1.0 for value in (entry.estimate, entry.summary.score)
    ]
    return known[0], known[1]


def _comparison_rows(outcome: Outcome, entries: Sequence[Entry]) -> Iterator[tuple[str, ...]]:
    phase = SCORED_ON[entries[0].phase]
    if phase == "search" and any(is_known(entry.estimate) for entry in entries):
        yield (f"{outcome.metric} on search, estimate", *map(believed, entries))
    yield (f"{outcome.metric} on {phase}", *map(with_interval, entries))
    yield ("questions", *(str(entry.summary.n) for entry in entries))
    yield ("prompt tokens a question", *(per_question(entry.summary.prompt_tokens, entry) for entry in entries))
    yield ("context tokens a question", *(number(entry.summary.context_tokens, 0) for entry in entries))
    yield ("seconds a question, median", *(number(entry.summary.latency_p50, 2) for entry in entries))
    yield ("failures", *(str(entry.summary.failures) for entry in entries))
    yield ("empty answers", *(str(entry.summary.empty_answers) for entry in entries))
    for name in entries[0].summary.measures:
        yield (name, *(number(entry.summary.measures.get(name, math.nan)) for entry in entries))
    for name in entries[0].params:
        yield (name, *(str(entry.params[name]) for entry in entries))


def _test_chart(outcome: Outcome) -> Chart | None:
    pair = (("baseline", outcome.test_baseline), ("winner", outcome.test_winner))
    dots = []
    for kind, entry in pair:
        if entry is None or math.isnan(entry.summary.low):
            return None
        dots.append(Dot(kind, entry.summary.score, entry.summary.low, entry.summary.high, kind))
    caption = (
        "Each score on the test questions with its own 95 % interval. The two were asked the same questions, so their "
        "difference is known better than the overlap of the intervals suggests."
    )
    return Chart(interval_chart(dots, f"{outcome.metric} on test, 95 % interval"), caption)


def phases(outcome: Outcome) -> Section | None:
    """The scores of baseline and winner from phase to phase."""
    if outcome.winner is None:
        return None
    trial, confirmed = trial_of(outcome, outcome.winner), outcome.finalists[0] if outcome.finalists else None
    rows = (
        _phase("search, estimate", outcome.baseline, trial, believed),
        _phase("search, as scored", outcome.baseline, trial, with_error),
        _phase("confirm", confirmed, outcome.winner, with_error),
        _phase("test", outcome.test_baseline, outcome.test_winner, with_error),
    )
    remark = (
        "As scored, the winner of a search is mostly too good, because it is the best of many. The estimate takes that "
        "back as far as the search can tell, confirm chose among few, and only the test says what to expect. ± is one "
        "standard deviation of an estimate, and one standard error of a score, with the questions of one group counted "
        "as dependent."
    )
    table = Table(("phase", "questions", "baseline", "winner"), rows, numeric=frozenset({1, 2, 3}))
    blocks: list[Block] = [table, Paragraph(remark)]
    if (said := optimism_text(outcome)) is not None:
        blocks.append(Paragraph(said))
    return Section("From phase to phase", tuple(blocks))


def _phase(name: str, base: Entry | None, new: Entry | None, told: Callable[[Entry], str]) -> tuple[str, ...]:
    """A row; both numbers of questions where they differ."""
    counts = dict.fromkeys(str(entry.summary.n) for entry in (base, new) if entry is not None)
    return (name, ", ".join(counts) or MISSING, *(told(e) if e is not None else MISSING for e in (base, new)))
