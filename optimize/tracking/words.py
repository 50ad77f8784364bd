"""The descriptions of a study's runs in MLflow: in words, what was tried and how it ended. Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from optimize.compiling.candidate import Candidate
from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.ledger import Ledger
from optimize.evaluation.outcome import SCORED_ON, Entry, Outcome
from optimize.reporting.headline import believed, duration, headline, is_known, money, number, with_error
from optimize.tracking.records import FAILED, STOPPED, WINNER, entry_outcome
from optimize.tracking.rows import lost_at

_PHASES = {
    "baseline": "The setting to beat, on the search questions.",
    "search": "A trial of the search.",
    "confirm": "A finalist, on questions that the search did not see.",
    "test": "On the test questions, which nothing was tuned on.",
}


def describe_entry(entry: Entry, metric: str, evaluation: Evaluation, baseline: Entry | None) -> str:
    """What an evaluation tried and how it ended.

    Args:
        entry: What was scored.
        metric: The score's name.
        evaluation: Its rows.
        baseline: What its settings are compared with; None where it is not known.
    """
    s = entry.summary
    ended = {
        FAILED: f"**Failed**: {s.failures} of {s.n} answers are failures, so the mean speaks for no one.",
        STOPPED: f"**Stopped early**: it was {entry.note}.",
    }.get(entry_outcome(entry), f"**Complete**: {s.n} questions were asked.")
    lines = [f"{_PHASES[entry.phase]} {ended}", "", *_settings(entry, baseline), ""]
    lines.append(f"It scored {with_error(entry)} {metric} on {s.n - s.failures} {SCORED_ON[entry.phase]} questions.")
    if is_known(entry.estimate):
        # The spread of a finalist is that of its difference to the best one.
        mean = number(entry.estimate or 0.0) if entry.phase == "confirm" else believed(entry)
        where = "search and confirm" if entry.phase == "confirm" else "all search"
        lines.append(f"Believed of it on {where} questions: {mean}.")
    lines += ["", *_costs(entry), *_losses(evaluation)]
    first = next((row.error for row in evaluation.rows if row.error), None)
    return "\n".join([*lines, *([f"- First failure: `{first}`"] if first else [])])


def _settings(entry: Entry, baseline: Entry | None) -> Iterator[str]:
    """What it changes, or everything where there is nothing to compare with."""
    if baseline is None or entry.unit == baseline.unit:
        yield ", ".join(f"{name} {value}" for name, value in entry.params.items() if value not in ("none", ""))
        return
    base, new = baseline.params, entry.params
    changed = [name for name in new if base.get(name) != new[name]]
    if not changed:
        yield "The baseline's settings."
        return
    yield from ("| setting | baseline | here |", "|---|---|---|")
    yield from (f"| {name} | {base.get(name)} | {new[name]} |" for name in changed)


def _costs(entry: Entry) -> Iterator[str]:
    s, asked = entry.summary, max(1, entry.summary.n)
    context, prompt = number(s.context_tokens, 0), number(s.prompt_tokens / asked, 0)
    yield f"- {context} context tokens and {prompt} prompt tokens a question"
    yield f"- {number(s.latency_p50, 2)} s a question (median), {number(s.latency_p95, 2)} s at the 95th percentile"
    yield f"- {s.calls:,} LM calls ({s.paid_calls:,} made), {money(s.usd)}, {s.failures} failures"


def _losses(evaluation: Evaluation) -> Iterator[str]:
    found = Counter(lost_at(row) for row in evaluation.rows)
    right = found.pop("", 0)
    where = ", ".join(f"{stage} {count}" for stage, count in found.most_common())
    yield f"- {right} answered rightly" + (f"; the others are lost at: {where}" if where else "")


def describe_turn(turn: str, made: list[Candidate], spent: Ledger, problem: str) -> str:
    """What a turn of an optimizer made and took."""
    total = spent.total
    if problem:
        ended = f"**Failed**: {problem}"
    elif made:
        ended = f"**Complete**: it made {', '.join(f'`{candidate.id}`' for candidate in made)}."
    else:
        ended = "**Complete**: it made nothing new."
    calls = f"{total.calls:,} LM calls ({total.paid_calls:,} made)"
    took = f"It took {calls}, {total.prompt_tokens:,} prompt tokens, {money(total.usd)}."
    return f"The turn `{turn}` of an optimizer, on training questions only. {ended}\n\n{took}"


def describe_outcome(outcome: Outcome, logging: Mapping[str, Any] | None = None) -> str:
    """The parent run's description: what was tried and how the study ended.

    Args:
        outcome: What was found.
        logging: Seconds that logging took behind the search and that the search waited for it.
    """
    spent = outcome.spent
    ended = Counter(entry_outcome(trial) for trial in outcome.trials)
    stopped = f", {ended[STOPPED]} of them stopped early" if ended[STOPPED] else ""
    failed = f", {ended[FAILED]} failed" if ended[FAILED] else ""
    lines = [
        f"**{headline(outcome).sentence}**",
        "",
        f"{len(outcome.trials)} trials of `{outcome.program}` on `{outcome.dataset}`{stopped}{failed}; answered by "
        f"{outcome.lm}; {spent.calls:,} LM calls ({spent.paid_calls:,} made), {money(spent.usd)}, "
        f"{duration(spent.seconds)}.",
    ]
    if outcome.winner is not None:
        lines += ["", "| setting | baseline | winner |", "|---|---|---|"]
        base, new = outcome.baseline.params, outcome.winner.params
        lines += [f"| {name} | {base[name]} | {new[name]} |" for name in new if base[name] != new[name]]
        lines += ["", f"Chosen by confirm: {outcome.choice}."] if outcome.choice else []
    elif (best := outcome.best_trial) is not None:
        lines += [
            "",
            f"Best of the search: `{best.unit}`, estimate {believed(best)}, score {number(best.summary.score)}.",
        ]
    lines += ["", f"Runs are tagged `ragwright.phase` and `ragwright.outcome`; the winner's are `{WINNER}`."]
    lines += ["", *(f"- Warning: {warning}" for warning in outcome.warnings)]
    if logging:
        took, waited = logging["behind"], logging["blocked"]
        lines += ["", f"Logging took {took:.1f} s behind the search, which waited {waited:.3f} s for it."]
    return "\n".join(lines)
