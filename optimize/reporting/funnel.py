"""The report's account of where answers are lost, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optimize.evaluation.outcome import SCORED_ON, Entry
from optimize.reporting.bars import Step, funnel_chart
from optimize.reporting.blocks import Block, Bullets, Chart, Paragraph, Section, Table
from optimize.reporting.headline import MISSING, number
from optimize.reporting.insight_funnel import RIGHT, STAGES, Fate, Funnel, funnel, lost_by
from optimize.reporting.record import Record
from optimize.reporting.scores import opponents

_FILE = "lost.json"
"""In the run folder: unit -> example id -> the stage of retrieval that lost its gold."""

_TOLD: Mapping[Fate, str] = {
    "splitter": "because the splitter cut the gold",
    "retriever": "because the retriever did not find the gold",
    "reranker": "because the reranker put the gold too low",
    "cutoff": "because the cut-off dropped the gold",
    "top_k": "because the gold was below top_k",
    "retrieval": "because not all of the gold was handed over",
    "generation": "although the LM had it",
}

_LOST: Mapping[Fate, str] = {
    "splitter": "cut by the splitter",
    "retriever": "not found by the retriever",
    "reranker": "put too low by the reranker",
    "cutoff": "dropped by the cut-off",
    "top_k": "below top_k",
    "retrieval": "not handed over",
    "generation": "handed over, answered wrongly",
}

_PASSED: Mapping[Fate, str] = {
    "splitter": "whole in chunks",
    "retriever": "retrieved",
    "reranker": "kept by reranker",
    "cutoff": "above the cut-off",
    "top_k": "handed over",
    "retrieval": "handed over",
    "generation": "answered rightly",
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
        if entry.unit not in known or len(known[entry.unit]["asked"]) < len(rows):
            known[entry.unit] = _followed(record, entry)
        one = funnel(rows, known[entry.unit]["lost"], known[entry.unit]["why"])
        if one is not None:
            found[name] = one
    # What could not be followed may be followed another time, and is not kept.
    worth_keeping = {unit: one for unit, one in known.items() if not one["why"]}
    if worth_keeping != kept:
        record.run.write_json(_FILE, worth_keeping)
    return found if len(found) == len(pairs) else {}


def _followed(record: Record, entry: Entry) -> dict[str, Any]:
    ids = list(record.rows(entry))
    examples = [record.examples[i] for i in ids if i in record.examples]
    runs = record.run.path.resolve().parent
    lost, why = lost_by(runs, record.dataset.corpus, entry.config, record.outcome.program, examples)
    return {"asked": ids, "lost": lost, "why": why}


def losses(record: Record, found: Funnels) -> Section | None:
    """Where answers are lost; None where no question has evidence."""
    if not found:
        return None
    phase = SCORED_ON[opponents(record.outcome)[0].phase]
    names = list(found)
    stages = [stage for stage in STAGES if any(one.lost[stage] for one in found.values()) or stage == "generation"]
    blocks: list[Block] = [Paragraph(_said(found)), _chart(found, stages, phase), _table(found, stages)]
    remarks = [_remark(name, found[name]) for name in names]
    coarse = dict.fromkeys(
        f"Of the {name} it is not known which stage: {found[name].why_coarse}."
        for name in names
        if found[name].why_coarse
    )
    return Section("Where answers are lost", (*blocks, Bullets((*remarks, *coarse, _ABOUT))))


_ABOUT = (
    "A question counts at the first stage that loses any of the facts it needs. Retrieval is followed without the LM; "
    f"an answer counts as right from a score of {RIGHT:g} on."
)


def _said(found: Funnels) -> str:
    """How many are lost, and where most of them, in one sentence each."""
    parts = []
    for name, one in found.items():
        stage, most = max(one.lost.items(), key=lambda item: item[1])
        lost = sum(one.lost.values())
        where = f", {most} of them {_TOLD[stage]}" if most else ""
        parts.append(f"The {name} loses {lost} of {one.asked} questions with evidence{where}.")
    return " ".join(parts)


def _chart(found: Funnels, stages: list[Fate], phase: str) -> Chart:
    kinds = ["baseline" if name == "baseline" else "winner" for name in found]
    every = list(found.values())
    left = [one.asked for one in every]
    steps = [_step("asked", left, every)]
    *_, last, _ = ["", *stages]
    for stage in stages:
        left = [before - one.lost[stage] for before, one in zip(left, every, strict=True)]
        steps.append(_step(_PASSED["top_k" if stage == last else stage], left, every))
    label = "Questions left after each stage: " + "; ".join(
        f"{step.name} {', '.join(f'{kind} {told}' for kind, told in zip(kinds, step.told, strict=True))}"
        for step in steps
    )
    numbers = tuple((step.name, *step.told) for step in steps)
    table = Table(("left after", *found), numbers, frozenset(range(1, 1 + len(found))), name="Questions left")
    caption = f"How many of the {phase} questions with evidence are left after each stage, from asked to answered."
    return Chart(funnel_chart(steps, kinds, label), caption, table)


def _step(name: str, left: list[int], every: list[Funnel]) -> Step:
    shares = tuple(count / max(1, one.asked) for count, one in zip(left, every, strict=True))
    return Step(name, shares, tuple(map(str, left)))


def _table(found: Funnels, stages: list[Fate]) -> Table:
    rows = [(_LOST[stage], *(f"{one.lost[stage]} of {one.asked}" for one in found.values())) for stage in stages]
    for title, attribute in (("mean score, gold whole", "score_with"), ("mean score, gold not whole", "score_without")):
        values = [getattr(one, attribute) for one in found.values()]
        rows.append((title, *(MISSING if value is None else number(value) for value in values)))
    return Table(("lost", *found), tuple(rows), frozenset(range(1, 1 + len(found))), name="Where questions are lost")


def _remark(name: str, one: Funnel) -> str:
    many = f"{one.lucky} question{'s' if one.lucky != 1 else ''}"
    failed = len(one.fates) - one.asked
    lucky = f"The {name} answered {many} rightly although not all of the gold was handed over"
    return f"{lucky}; {failed} have no answer." if failed else f"{lucky}."
