"""The report's prompt before and after, line by line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from optimize.compiling.candidate import Candidate, PredictorPrompt
from optimize.data.example import Example
from optimize.evaluation.outcome import Entry
from optimize.reporting.blocks import Block, Change, Diff, Fold, Paragraph, Section
from optimize.reporting.cost import ROLES
from optimize.reporting.record import Record
from optimize.reporting.scores import opponents
from programs.errors import RagwrightError

_AROUND = 3
"""Lines shown around a change."""

_TITLE = "The prompt before and after"

_DEMOS = (
    "The passages of a demo are retrieved anew under each configuration, so they are no part of the candidate; "
    "export/prompt.md has them as the LM reads them."
)


def prompts(record: Record) -> Section | None:
    """What the winner's prompts say differently; None where there is nothing to compare."""
    base, new = opponents(record.outcome)
    if new is None:
        return None
    name, entry = new
    try:
        before, after = (record.run.read_candidate(one.candidate) for one in (base, entry))
    except RagwrightError:
        return None
    now = _read_now(record, entry)
    if before.content == after.content:
        kept = _formats(base, entry, "the format is the same, too ({})", "but the format is {1} instead of {0}")
        return Section(_TITLE, (Paragraph(f"Both have the prompts of {after.id}; {kept}."), *now))
    how = _formats(base, entry, "both in the format {}", "in the formats {} and {}")
    blocks: list[Block] = [Paragraph(f"From {before.id} (the baseline's) to {after.id} (the {name}'s), {how}.")]
    for predictor in after.prompts:
        old = before.prompts.get(predictor, PredictorPrompt(""))
        texts = (list(_lines(one, record.examples)) for one in (old, after.prompts[predictor]))
        blocks.append(Diff(f"Predictor {predictor}", tuple(changes(*texts))))
    if after.demo_count:
        blocks.append(Paragraph(_DEMOS))
    return Section(_TITLE, (*blocks, Paragraph(_made_by(after)), *now))


def _formats(base: Entry, entry: Entry, same: str, different: str) -> str:
    names = [one.config.prompt_format for one in (base, entry)]
    return (same if names[0] == names[1] else different).format(*names)


def _read_now(record: Record, entry: Entry) -> list[Block]:
    """What the LM reads with the winner's settings, from the export; nothing where there is none of it yet."""
    manifest = record.run.read_json("export/manifest.json") or {}
    if (manifest.get("configuration"), manifest.get("candidate")) != (entry.config.fingerprint(), entry.candidate):
        return []
    found: list[Block] = []
    for one in record.run.read_json("export/messages.json") or []:
        lines: list[tuple[Change, str]] = []
        for message in one["messages"]:
            lines.append(("skipped", message["role"]))
            lines += [("same", line) for line in str(message["content"]).splitlines()]
        found.append(Diff(f"Predictor {one['predictor']}", tuple(lines)))
    for file in sorted(record.run.export.glob("prompt*.txt")):
        lines = [("same", line) for line in file.read_text(encoding="utf-8").splitlines()]
        found.append(Diff(file.name, tuple(lines)))
    return [Fold("What the LM reads now, with placeholders", tuple(found))] if found else []


def _made_by(candidate: Candidate) -> str:
    params = ", ".join(f"{name} {value}" for name, value in (candidate.params or {}).items())
    calls = ", ".join(f"{count} {ROLES.get(role, role)}" for role, count in candidate.calls.items() if count)
    told = f"Made by {candidate.optimizer}" + (f" ({params})" if params else "")
    return f"{told}, with LM calls: {calls}." if calls else f"{told}, without an LM call."


def _lines(prompt: PredictorPrompt, examples: Mapping[str, Example]) -> Iterator[str]:
    """A prompt as lines, whatever format it will be sent in."""
    yield from prompt.instructions.splitlines()
    for demo in prompt.demos:
        example = examples.get(demo.example_id)
        yield ""
        yield f"question: {example.question if example else f'(example {demo.example_id})'}"
        for name, text in demo.outputs.items():
            first, *rest = text.splitlines() or [""]
            yield f"{name}: {first}"
            yield from rest


def changes(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[Change, str]]:
    """What became of each line; long stretches without a change are skipped."""
    lines: list[tuple[Change, str]] = []
    for kind, first, last, new_first, new_last in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        if kind == "equal":
            lines += [("same", line) for line in before[first:last]]
        else:
            lines += [("removed", line) for line in before[first:last]]
            lines += [("added", line) for line in after[new_first:new_last]]
    near = {
        place + around
        for place, (change, _) in enumerate(lines)
        if change != "same"
        for around in range(-_AROUND, _AROUND + 1)
    }
    skipped = 0
    for place, line in enumerate([*lines, None]):
        if line is not None and place not in near:
            skipped += 1
            continue
        if skipped:
            yield "skipped", f"{skipped} line{'s' if skipped > 1 else ''} as before"
            skipped = 0
        if line is not None:
            yield line
