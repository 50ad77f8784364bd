"""The report's account of where answers are lost, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optimize.evaluation.outcome import SCORED_ON, Entry
from optimize.reporting.bars import Step, funnel_chart
from optimize.reporting.blocks import Bullets, Chart, Paragraph, Section, Table
from optimize.reporting.headline import MISSING, number
from optimize.reporting.insight_funnel import RIGHT, STAGES, Fate, Funnel, follow, funnel
from optimize.reporting.record import Record
from optimize.reporting.scores import opponents
from optimize.screening.explain import SHOWN_DEPTH

_FILE = "lost.json"
"""In the run folder: what became of the gold of each unit's questions in retrieval."""

_NEAR = 10
"""Gold up to this rank is found by asking for a few more."""

LOST: Mapping[Fate, str] = {
    "splitter": "cut by the splitter",
    "retriever": "not among the first retrieve_k",
    "reranker": "put too low by the reranker",
    "cutoff": "dropped by the cut-off",
    "top_k": "retrieved below top_k",
    "retrieval": "not handed over",
    "generation": "handed over, answered wrongly",
}
"""What became of the gold of a question."""

_PASSED: Mapping[Fate, str] = {
    "splitter": "whole in chunks",
    "retriever": "retrieved",
    "reranker": "kept by reranker",
    "cutoff": "above the cut-off",
    "top_k": "handed over",
    "retrieval": "handed over",
    "generation": "answered from it",
}

Funnels = Mapping[str, Funnel]
"""`baseline` and what it is compared with -> what became of their questions."""


def funnels(record: Record) -> Funnels:
    """What became of the questions of the baseline and of its opponent; empty where none has evidence."""
    base, new = opponents(record.outcome)
    pairs = [("baseline", base), *([new] if new else [])]
    kept: dict[str, Any] = record.run.read_json(_FILE) or {}
    found, known = {}, dict(kept)
    for name, entry in pairs:
        rows = record.rows(entry)
        had = known.get(entry.unit)
        if had is None or "ranks" not in had or len(had["asked"]) < len(rows):
            now = _followed(record, entry)
            # What was found once is better than why it cannot be found again.
            known[entry.unit] = had if had is not None and now["why"] else now
        one = funnel(rows, known[entry.unit]["lost"], known[entry.unit]["why"], known[entry.unit].get("ranks", {}))
        if one is not None:
            found[name] = one
    # What could not be followed may be followed another time, and is not kept.
    worth_keeping = {unit: one for unit, one in known.items() if not one["why"]}
    if worth_keeping != kept:
        record.run.write_json(_FILE, worth_keeping)
    return found if len(found) == len(pairs) else {}


def _followed(record: Record, entry: Entry) -> dict[str, Any]:
    ids = list(record.rows(entry))
    if record.dataset is None:
        return {"asked": ids, "lost": {}, "ranks": {}, "why": "its questions are no longer there"}
    examples = [record.examples[i] for i in ids if i in record.examples]
    runs = record.run.path.resolve().parent
    found = follow(runs, record.dataset.corpus, entry.config, record.outcome.program, examples)
    return {"asked": ids, "lost": found.lost, "ranks": found.ranks, "why": found.why_not}


def losses(record: Record, found: Funnels) -> Section | None:
    """Where answers are lost; None where no question has evidence."""
    if not found:
        return None
    phase = SCORED_ON[opponents(record.outcome)[0].phase]
    stages = [stage for stage in STAGES if any(one.lost[stage] for one in found.values()) or stage == "generation"]
    remarks = [remark for name, one in found.items() for remark in _remarks(name, one)]
    coarse = [
        f"Of the {name} it is not known which stage of retrieval: {one.why_coarse}."
        for name, one in found.items()
        if one.why_coarse
    ]
    told = " ".join(_said(name, one) for name, one in found.items())
    blocks = Paragraph(told), _chart(found, stages, phase), _table(found, stages), Bullets((*remarks, *coarse, _ABOUT))
    return Section("Where answers are lost", blocks)


_ABOUT = (
    "A question counts at the first stage that loses any of the facts it needs. Retrieval is followed without the LM; "
    f"an answer counts as right from a score of {RIGHT:g} on."
)


def _said(name: str, one: Funnel) -> str:
    """How many are lost, and where most of them."""
    stage, most = max(one.lost.items(), key=lambda item: item[1])
    lost = sum(one.lost.values())
    where = f"; the largest loss: {most} {LOST[stage]}" if most else ""
    return f"Of {one.asked} questions with evidence the {name} loses {lost}{where}."


def _chart(found: Funnels, stages: Sequence[Fate], phase: str) -> Chart:
    left = [one.asked for one in found.values()]
    steps: list[Step] = [("asked", left)]
    for place, stage in enumerate(stages):
        left = [before - one.lost[stage] for before, one in zip(left, found.values(), strict=True)]
        # Whatever the last stage of retrieval is, what passes it is handed over.
        steps.append((_PASSED["top_k" if place == len(stages) - 2 else stage], left))
    sides = [(name, "baseline" if name == "baseline" else "winner") for name in found]
    told = "; ".join(
        f"{stage} {', '.join(f'{name} {count}' for name, count in zip(found, left, strict=True))}"
        for stage, left in steps
    )
    numbers = tuple((stage, *map(str, left)) for stage, left in steps)
    table = Table(("left after", *found), numbers, frozenset(range(1, 1 + len(found))), name="Questions left")
    caption = f"How many of the {phase} questions with evidence are left after each stage, from asked to answered."
    return Chart((funnel_chart(steps, sides, f"Questions left after each stage: {told}"),), caption, table)


def _table(found: Funnels, stages: Sequence[Fate]) -> Table:
    rows = [(LOST[stage], *(f"{one.lost[stage]} of {one.asked}" for one in found.values())) for stage in stages]
    parted = [sum(one.lost[stage] for stage in STAGES if stage != "generation") for one in found.values()]
    every = list(zip(found.values(), parted, strict=True))
    rows.append(("mean score, gold whole", *(_mean(one.score_with, one.asked - n) for one, n in every)))
    rows.append(("mean score, gold not whole", *(_mean(one.score_without, n) for one, n in every)))
    return Table(("gold", *found), tuple(rows), frozenset(range(1, 1 + len(found))), name="Where questions are lost")


def _mean(value: float | None, n: int) -> str:
    return MISSING if value is None else f"{number(value)} (n = {n})"


def _remarks(name: str, one: Funnel) -> Iterator[str]:
    late = [rank for i, rank in one.ranks.items() if one.fates.get(i) == "retriever"]
    if late:
        near, found = (sum(rank is not None and rank <= most for rank in late) for most in (_NEAR, SHOWN_DEPTH))
        yield (
            f"Of the {len(late)} that the {name} loses at retrieve_k, {near} stand within rank {_NEAR} and {found} "
            f"within rank {SHOWN_DEPTH}: asking for more reaches those, another retriever the rest."
        )
    if one.lucky:
        yield f"The {name} answered {one.lucky} rightly without all of the gold; they count as lost."
    if failed := len(one.fates) - one.asked:
        yield f"The {name} failed on {failed}; they do not count."
