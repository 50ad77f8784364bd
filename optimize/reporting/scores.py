"""The report's scores: baseline against winner, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from optimize.evaluation.outcome import SCORED_ON, Entry, Guard, Outcome
from optimize.inference.statistics import PairedDifference
from optimize.reporting.blocks import Block, Chart, Fold, Paragraph, Section, Table
from optimize.reporting.charts import interval_chart
from optimize.reporting.drawing import Dot
from optimize.reporting.headline import (
    MISSING,
    believed,
    interval,
    is_known,
    number,
    per_question,
    probability,
    signed,
    with_error,
    with_interval,
)
from optimize.reporting.settings import differing, setting_text
from optimize.reporting.trials import optimism_text, trial_of


def comparison(outcome: Outcome) -> Section:
    """Baseline against winner: what the verdict is about, what was set differently, and all numbers."""
    chart = _test_chart(outcome)
    blocks: list[Block] = [] if chart is None else [chart]
    if outcome.difference is not None:
        blocks.append(Paragraph(_difference(outcome, outcome.difference)))
    blocks += [settings_table(outcome), numbers_table(outcome)]
    base, new = opponents(outcome)
    if new is not None:
        alike = [name for name, value in base.params.items() if value == new[1].params[name]]
        rows = tuple((name, setting_text(base.params[name])) for name in alike)
        blocks.append(Fold(f"{len(alike)} settings are the same in both", (Table(("setting", "both"), rows),)))
    if outcome.guards:
        blocks += [Paragraph("Metrics that may not fall, on the same questions:"), _guards(outcome.guards)]
    return Section("Baseline and winner", tuple(blocks))


def settings_table(outcome: Outcome) -> Table:
    """What is set differently; all settings where there is nothing but the baseline."""
    base, new = opponents(outcome)
    if new is None:
        every = tuple((name, setting_text(value)) for name, value in base.params.items())
        return Table(("setting", "baseline"), every, frozenset({1}))
    found = differing([base.params, new[1].params])
    rows = tuple((name, *map(setting_text, values)) for name, values in found.items())
    return Table(("set differently", "baseline", new[0]), rows, frozenset({1, 2}))


def numbers_table(outcome: Outcome) -> Table:
    """Scores and costs of the two, on the latest examples that the baseline was scored on."""
    base, new = opponents(outcome)
    entries = [base, *([new[1]] if new else [])]
    header = ("", "baseline", *([new[0]] if new else []))
    return Table(header, tuple(_comparison_rows(outcome, entries)), frozenset(range(1, len(header))))


def _difference(outcome: Outcome, d: PairedDifference) -> str:
    if outcome.verdict is None:
        return "The comparison is void, so nothing is said of a difference."
    return (
        f"Winner minus baseline on the same {d.n} questions: {signed(d.mean)}, 95 % interval {signed(d.low)} to "
        f"{signed(d.high)}, {probability(d.p_value)} by sign flips of {d.clusters} groups of questions. A test of "
        f"this size shows a true difference of {number(d.detectable)} with 80 % power. "
        f"{_openings(outcome.test_openings)}"
    )


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
            interval(guard.difference),
            str(guard.difference.n),
            _STATES[guard.state],
        )
        for guard in guards
    )
    header = ("guard", "may fall by", "winner minus baseline (95 % interval)", "questions", "state (one-sided 95 %)")
    return Table(header, rows, numeric=frozenset({1, 2, 3}))


def _openings(count: int) -> str:
    if count <= 1:
        return "The test questions of this state of the data were opened once, for this verdict."
    return (
        f"The test questions of this state of the data have been opened {count} times, this time included. Each "
        "further look makes a chance find more likely; new questions would be a fresh test."
    )


def opponents(outcome: Outcome) -> tuple[Entry, tuple[str, Entry] | None]:
    """The baseline and what it is compared with, by name, on the latest examples that the baseline was scored on.

    A trial may have been asked a part of them only.
    """
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
    estimate, score = (
        -1.0 if value is None or math.isnan(value) else value for value in (entry.estimate, entry.summary.score)
    )
    return estimate, score


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


def _test_chart(outcome: Outcome) -> Chart | None:
    pair = (("baseline", outcome.test_baseline), ("winner", outcome.test_winner))
    entries = [(kind, entry) for kind, entry in pair if entry is not None and not math.isnan(entry.summary.low)]
    if len(entries) < 2:
        return None
    dots = [Dot(kind, e.summary.score, e.summary.low, e.summary.high, kind) for kind, e in entries]
    svgs = [interval_chart(dots, f"{outcome.metric} on test, 95 % interval")]
    caption = "Each score on the test questions with its own 95 % interval."
    if (d := outcome.difference) is not None and outcome.verdict is not None and math.isfinite(d.low):
        gap = Dot("difference", d.mean, d.low, d.high, "winner")
        svgs.append(interval_chart([gap], "winner minus baseline, 95 % interval", zero=True))
        caption += (
            " The verdict is about the difference: both were asked the same questions, so that it is mostly known "
            "better than the overlap of their own intervals suggests."
        )
    return Chart(tuple(svgs), caption)


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
