"""Find where a corpus states the answers of questions that come without evidence, and write it down.

What is sure goes into the question files, the rest into `review.jsonl` for a person. Evidence that is there already is
never touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.data.example import Example, Fact
from optimize.data.locating.index import SentenceIndex
from optimize.data.locating.places import ALIKE, METHODS, Proposal, propose
from optimize.data.locating.support import SURE, Candidates, find_candidates
from programs.corpus import find_corpus, load_corpus
from programs.embedding import open_embedder
from programs.types import Document

if TYPE_CHECKING:
    from optimize.data.locating.check import Calls
    from programs.lm import LMSpec

EMBEDDER = "wordllama"
OnStep = Callable[[str, int, int], None]
"""Hears what is going on, and how many of how many questions are done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found for one question.

    Attributes:
        example: The question with its answers.
        proposals: The likeliest places, at most three, the best first; empty where nothing fits.
        chosen: Number of the proposal that is sure, or None.
        why: Why none is sure; empty where one is.
        checked: Whether a language model made it sure.
    """

    example: Example
    proposals: tuple[Proposal, ...]
    chosen: int | None
    why: str = ""
    checked: bool = False

    @property
    def place(self) -> Proposal | None:
        """The proposal that is sure."""
        return None if self.chosen is None else self.proposals[self.chosen]

    @property
    def evidence(self) -> tuple[Fact, ...]:
        """The evidence to write; empty where nothing is sure."""
        return () if self.place is None else (self.place.fact,)


def locate(
    documents: Sequence[Document], examples: Sequence[Example], on_step: OnStep = lambda what, done, total: None
) -> list[Finding]:
    """Find where the answers of some questions are stated.

    A question is taken to need one fact. One that needs two, such as a comparison, gets the place that supports its
    answer best, if any.

    Args:
        documents: The corpus.
        examples: Questions with at least one answer each.
        on_step: Hears how far it is.
    """
    if not examples:
        return []
    index = SentenceIndex(documents)
    asked = [(example.question, example.known_answers) for example in examples]
    found = find_candidates(
        index, open_embedder(EMBEDDER), asked, lambda done: on_step("searching", done, len(examples))
    )
    findings = []
    for example, candidates in zip(examples, found, strict=True):
        findings.append(_finding(index, example, candidates))
        on_step("choosing", len(findings), len(examples))
    return findings


def _finding(index: SentenceIndex, example: Example, candidates: Candidates) -> Finding:
    proposals = tuple(propose(index, candidates))
    if proposals and proposals[0].confidence >= SURE:
        return Finding(example, proposals, 0)
    return Finding(example, proposals, None, _why(proposals))


def _why(proposals: Sequence[Proposal]) -> str:
    if not proposals:
        return "no place fits"
    best = proposals[0]
    rivals = [proposal for proposal in proposals[1:] if proposal.confidence >= ALIKE * best.confidence]
    if rivals:
        return f"{len(rivals) + 1} places fit about as well"
    if best.method == "passage":
        return "the answer stands nowhere word for word, and the best passage fits only in part"
    return "the answer stands there, but the question fits the place only in part"


@dataclass(frozen=True)
class Located:
    """What locating did to a data set folder.

    Attributes:
        folder: The folder.
        files: File name -> number of questions, and number of them whose evidence is known now.
        had_evidence: Questions whose evidence was known before.
        unanswerable: Questions with an empty list of answers.
        unknown: Questions whose answers are not known.
        accepted: Questions whose place a person accepted in `review.jsonl`.
        rejected: Questions for which a person rejected all places.
        findings: What was found for the others.
        calls: What a language model was asked, if one was.
        split: Whether the questions are in their splits already.
        written: Whether anything was written.
    """

    folder: Path
    files: Mapping[str, tuple[int, int]]
    had_evidence: int
    unanswerable: int
    unknown: int
    accepted: int
    rejected: int
    findings: Sequence[Finding]
    calls: Calls | None
    split: bool
    written: bool

    @property
    def by_method(self) -> dict[str, int]:
        """Method -> number of questions located by it."""
        counts = Counter(finding.place.method for finding in self.findings if finding.place)
        return {method: counts[method] for method in METHODS}

    @property
    def unsure(self) -> int:
        """Questions with places of which none is sure."""
        return sum(finding.chosen is None and bool(finding.proposals) for finding in self.findings)

    @property
    def nothing(self) -> int:
        """Questions for which no place fits."""
        return sum(not finding.proposals for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The counts, JSON-serializable."""
        questions, measurable = (sum(counts[at] for counts in self.files.values()) for at in (0, 1))
        return {
            "folder": str(self.folder),
            "questions": questions,
            "had_evidence": self.had_evidence,
            "unanswerable": self.unanswerable,
            "unknown_answers": self.unknown,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "located": self.by_method,
            "located_by_lm": sum(finding.checked for finding in self.findings),
            "unsure": self.unsure,
            "nothing_found": self.nothing,
            "measurable": {"all": _share(questions, measurable)}
            | {name: _share(*counts) for name, counts in self.files.items()},
            "lm_calls": self.calls.as_json() if self.calls else None,
            "written": self.written,
        }


def _share(questions: int, measurable: int) -> float:
    return measurable / questions if questions else 0.0


def locate_folder(
    folder: Path,
    *,
    lm: LMSpec | None = None,
    max_calls: int = 200,
    runs: Path = Path("runs"),
    dry_run: bool = False,
    on_step: OnStep = lambda what, done, total: None,
) -> Located:
    """Locate the answers of a data set folder's questions, in its splits or in `questions.jsonl` where it has none.

    Args:
        folder: A data set folder.
        lm: A language model to ask about the questions that are unsure; it reads passages, questions and answers.
        max_calls: Largest number of calls that are really made.
        runs: Where the model's answers are kept.
        dry_run: Write nothing.
        on_step: Hears how far it is.

    Raises:
        ProblemsError: Mistakes in the question files or in `review.jsonl`, all of them; nothing is written.
        RagwrightError: The folder or its questions are missing, or the language model refuses every call.
    """
    from optimize.data.locating.files import QuestionFiles

    corpus = load_corpus(find_corpus(folder))
    files = QuestionFiles.read(folder, {document.id: document for document in corpus.documents})
    settled = files.accepted | dict.fromkeys(files.rejected, ())
    open_ = [example for example in files.examples if _is_open(example) and example.id not in settled]
    findings = locate(corpus.documents, open_, on_step)
    calls = None
    if lm is not None:
        from optimize.data.locating.check import check_unsure

        findings, calls = check_unsure(findings, lm, max_calls, runs, on_step)
    evidence = files.accepted | {finding.example.id: finding.evidence for finding in findings if finding.evidence}
    if not dry_run:
        files.write(evidence, [finding for finding in findings if finding.chosen is None])
    left = [example for example in files.examples if not example.evidence]
    return Located(
        folder,
        files.counts(evidence),
        had_evidence=len(files.examples) - len(left),
        unanswerable=sum(example.answers == () for example in left),
        unknown=sum(example.answers is None for example in left),
        accepted=len(files.accepted),
        rejected=len(files.rejected),
        findings=findings,
        calls=calls,
        split=files.split,
        written=not dry_run,
    )


def _is_open(example: Example) -> bool:
    return bool(example.answers) and not example.evidence


def describe(located: Located) -> list[str]:
    """The outcome in lines for a person, with what to do next."""
    counts: Mapping[str, Any] = located.as_json()
    before = [f"{located.had_evidence} had evidence"]
    before += [f"{located.unanswerable} unanswerable"] * bool(located.unanswerable)
    before += [f"{located.unknown} with unknown answers"] * bool(located.unknown)
    found = sum(located.by_method.values())
    methods = ", ".join(f"{count} {method}" for method, count in located.by_method.items() if count)
    lines = [f"questions    {counts['questions']}: {', '.join(before)}"]
    lines += [f"accepted     {located.accepted}"] * bool(located.accepted)
    lines += [f"rejected     {located.rejected}"] * bool(located.rejected)
    lines.append(f"located      {found}" + (f": {methods}" if methods else ""))
    if located.calls is not None:
        lines.append(f"language model  {located.calls}; made {counts['located_by_lm']} sure")
    lines += [f"unsure       {located.unsure}", f"nothing fits {located.nothing}"]
    shares = ", ".join(f"{name} {_share(*sizes):.1%}" for name, sizes in located.files.items())
    lines.append(f"measurable   {counts['measurable']['all']:.1%} of the questions can measure retrieval ({shares})")
    return lines + _next(located)


def _next(located: Located) -> list[str]:
    if not located.written:
        return ["nothing was written (--dry-run)"]
    lines = []
    if located.unsure + located.nothing:
        lines.append(
            f'review       {located.folder / "review.jsonl"}: in each line set "accept" to the number of the right '
            "proposal (the first is 0), or to false where none is right, and run the same command again; or copy a "
            "proposal's \"evidence\" into the question's line yourself."
        )
    if located.split:
        lines.append(f"next         ragwright data check {located.folder} (says whether splits share documents)")
    else:
        lines.append(f"next         ragwright data split {located.folder}")
    return lines
