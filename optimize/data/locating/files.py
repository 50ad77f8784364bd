"""A data set's question files and its `review.jsonl`, as locating reads and writes them."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optimize.data.dataset import SPLITS, read_examples
from optimize.data.example import Example, ExampleError, Fact, parse_example
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.types import Document

if TYPE_CHECKING:
    from optimize.data.locating.locating import Finding

REVIEW = "review.jsonl"
Evidence = tuple[Fact, ...]

_NO_EVIDENCE = re.compile(r'"evidence"\s*:\s*\[\s*\]')


@dataclass
class QuestionFiles:
    """The question files of a folder with what a person decided in its `review.jsonl`.

    Attributes:
        folder: The data set folder.
        split: Whether the questions are in their splits.
        numbered: File -> its examples with their line numbers from 1.
        accepted: Id -> the evidence that a person accepted; only of questions that have none yet.
        rejected: Id -> the line of `review.jsonl` in which a person rejected all places.
    """

    folder: Path
    split: bool
    numbered: dict[Path, list[tuple[int, Example]]]
    accepted: dict[str, Evidence] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, documents: Mapping[str, Document]) -> Self:
        """Read a folder.

        Raises:
            ProblemsError: Every mistake in the files.
            RagwrightError: There are no questions.
        """
        paths = [folder / f"{name}.jsonl" for name in SPLITS]
        split = any(path.is_file() for path in paths)
        paths = paths if split else [folder / "questions.jsonl"]
        if missing := [path for path in paths if not path.is_file()]:
            mend = "the folder has other splits, so it needs this one" if split else "write one question a line"
            raise RagwrightError(f"{missing[0]}: missing; {mend}.")
        problems: list[Problem] = []
        # Quotes that moved are found again when the data set is read; they are none of locating's business.
        numbered = {path: read_examples(path, documents, problems, []) for path in paths}
        problems += _repeated_ids(numbered)
        files = cls(folder, split, numbered)
        files._read_review(documents, problems)
        if problems:
            raise ProblemsError(problems)
        return files

    @property
    def examples(self) -> list[Example]:
        """All examples in the order of files and lines."""
        return [example for found in self.numbered.values() for _, example in found]

    def counts(self, evidence: Mapping[str, Evidence]) -> dict[str, tuple[int, int]]:
        """File name -> number of questions, and of those with evidence, counting new evidence by id."""
        return {
            path.stem: (len(found), sum(bool(one.evidence) or one.id in evidence for _, one in found))
            for path, found in self.numbered.items()
        }

    def write(self, evidence: Mapping[str, Evidence], unsure: Sequence[Finding]) -> None:
        """Add evidence to the questions' lines and write `review.jsonl` anew: each file whole or not at all.

        Nothing else of a line changes, and a file without new evidence is not written.

        Args:
            evidence: Id -> evidence.
            unsure: What a person should look at.
        """
        texts: dict[Path, str | None] = {path: self._with_evidence(path, evidence) for path in self.numbered}
        review = "".join(f"{line}\n" for line in [*map(review_line, unsure), *self.rejected.values()])
        # The review comes last: what was accepted leaves it only when it is in its line.
        texts[self.folder / REVIEW] = review or None
        _replace_all({path: text for path, text in texts.items() if text is not None})
        if not review:
            (self.folder / REVIEW).unlink(missing_ok=True)

    def _with_evidence(self, path: Path, evidence: Mapping[str, Evidence]) -> str | None:
        """The file's text with the new evidence; None where there is none."""
        new = {number: evidence[one.id] for number, one in self.numbered[path] if evidence.get(one.id)}
        if not new:
            return None
        lines = path.read_bytes().decode("utf-8").split("\n")
        for number, facts in new.items():
            lines[number - 1] = line_with_evidence(lines[number - 1], facts)
        return "\n".join(lines)

    def _read_review(self, documents: Mapping[str, Document], problems: list[Problem]) -> None:
        path = self.folder / REVIEW
        if not path.is_file():
            return
        by_id = {example.id: example for example in self.examples}
        for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").split("\n"), start=1):
            try:
                entry = json.loads(line) if line.strip() else {}
                decided = _decision(entry)
                example = by_id.get(str(entry.get("id")))
                if decided is None or example is None or example.evidence:
                    continue
                if decided is False:
                    self.rejected[example.id] = line.rstrip("\r")
                else:
                    facts = decided.get("evidence")
                    content = {"question": example.question, "answers": [], "evidence": facts}
                    self.accepted[example.id] = parse_example(content, documents, example.id)[0].evidence
            except (ValueError, RecursionError) as error:
                problems.append(Problem(f"{path}:{number}", str(error), "mend or remove the line"))


def _decision(entry: Any) -> Any:
    """The proposal that a line of `review.jsonl` accepts; False: none is right; None: nothing is decided.

    Raises:
        ExampleError: `accept` says something else.
    """
    if not isinstance(entry, dict):
        raise ExampleError(f"a JSON object is needed, got {type(entry).__name__}")
    accept, proposals = entry.get("accept"), entry.get("proposals", [])
    if accept is None or accept is False:
        return accept
    if type(accept) is not int or not isinstance(proposals, list) or not 0 <= accept < len(proposals):
        raise ExampleError(f"'accept' is the number of a proposal from 0, false or null, got {accept!r:.40}")
    if not isinstance(proposals[accept], dict) or not proposals[accept].get("evidence"):
        raise ExampleError(f"proposal {accept} has no 'evidence'")
    return proposals[accept]


def line_with_evidence(line: str, evidence: Evidence) -> str:
    """A question's line with evidence added; everything else stays as it is, byte for byte.

    Args:
        line: A JSON object, without evidence or with an empty list of it.
        evidence: At least one fact.
    """
    example = Example("", "", (), evidence)
    said = f'"evidence": {json.dumps(example.as_json()["evidence"], ensure_ascii=False)}'
    if json.loads(line.removeprefix("\ufeff")).get("evidence") is not None:
        # Inside a string its quotation marks would be escaped, so the first match is the key itself.
        return _NO_EVIDENCE.sub(lambda _: said, line, count=1)
    end = line.rindex("}")
    return f"{line[:end].rstrip()}, {said}{line[end:]}"


def review_line(finding: Finding) -> str:
    """What a person needs to decide about one question, as a line of `review.jsonl`."""
    example = finding.example
    proposals = []
    for proposal in finding.proposals:
        evidence = Example("", "", (), (proposal.fact,)).as_json()["evidence"]
        proposals.append(
            {
                "confidence": round(proposal.confidence, 3),
                "method": proposal.method,
                "sentence": proposal.sentence,
                "evidence": evidence,
            }
        )
    content = {"id": example.id, "question": example.question, "answers": list(example.known_answers)}
    return json.dumps(content | {"why": finding.why, "accept": None, "proposals": proposals}, ensure_ascii=False)


def _repeated_ids(numbered: Mapping[Path, Sequence[tuple[int, Example]]]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for path, found in numbered.items():
        for number, example in found:
            place = f"{path}:{number}"
            if example.id in first:
                problems.append(Problem(place, f"id {example.id!r} is already used at {first[example.id]}"))
            first.setdefault(example.id, place)
    return problems


def _replace_all(texts: Mapping[Path, str]) -> None:
    """Write files aside, and when all of them are complete, put them in their places in order."""
    asides = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in texts}
    try:
        for path, text in texts.items():
            asides[path].write_bytes(text.encode("utf-8"))
        for path, aside in asides.items():
            os.replace(aside, path)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
