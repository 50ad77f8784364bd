"""How well `ragwright data locate` finds evidence that is known and hidden from it.

Run: uv run python benchmarks/locate_squad.py FOLDER

FOLDER is a data set with evidence, such as SQuAD as `ragwright data import` writes it. The weights and the threshold
are fitted on SQuAD's train split (benchmarks/locate_fit.py), so its other splits are the ones to read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optimize.data.dataset import SPLITS, load_dataset
from optimize.data.example import Example
from optimize.data.locating.locating import Finding, locate
from optimize.data.locating.places import METHODS
from optimize.data.locating.text import sentences
from programs.environment import set_environment_defaults
from programs.types import Document, Span

PARAPHRASES = Path(__file__).with_name("locate_paraphrases.json")
REPEATS = 3


@dataclass(frozen=True)
class Judged:
    """A finding that is sure, against the truth.

    Attributes:
        method: How it was located.
        span: Whether one of its places shares characters with a true place.
        first: Whether its first place does.
        sentence: Whether one of its places lies in a sentence of a true place.
        paragraph: Whether one of its places lies in a paragraph of a true place.
        elsewhere: Whether it lists places in more than one sentence.
    """

    method: str
    span: bool
    first: bool
    sentence: bool
    paragraph: bool
    elsewhere: bool


def judge(finding: Finding, truth: Example, documents: Mapping[str, Document]) -> Judged:
    assert finding.place is not None
    true = [place.span for fact in truth.evidence for place in fact]
    found = [place.span for place in finding.place.fact]
    wide = [_widened(span, sentences(documents[span.doc_id].text)) for span in true]
    wider = [_widened(span, _paragraphs(documents[span.doc_id].text)) for span in true]
    return Judged(
        finding.place.method,
        span=_meet(found, true),
        first=_meet(found[:1], true),
        sentence=_meet(found, wide),
        paragraph=_meet(found, wider),
        elsewhere=len({_widened(span, sentences(documents[span.doc_id].text)) for span in found}) > 1,
    )


def _meet(found: Sequence[Span], true: Sequence[Span]) -> bool:
    return any(one.overlap(other) for one in found for other in true)


def _widened(span: Span, pieces: Sequence[tuple[int, int]]) -> Span:
    inside = [piece for piece in pieces if piece[0] < span.end and span.start < piece[1]]
    return Span(span.doc_id, min(span.start, inside[0][0]), max(span.end, inside[-1][1])) if inside else span


def _paragraphs(text: str) -> list[tuple[int, int]]:
    pieces, start = [], 0
    for block in text.split("\n\n"):
        pieces.append((start, start + len(block)))
        start += len(block) + 2
    return pieces


def run(name: str, documents: Mapping[str, Document], truths: Sequence[Example], answers: Mapping[str, str]) -> float:
    """Hide the evidence, put other answers in where there are some, locate, and print a line for each method.

    Returns:
        Seconds of processor time that locating took.
    """
    hidden = [
        replace(one, evidence=(), answers=(answers[one.id],) if one.id in answers else one.answers) for one in truths
    ]
    begun = time.process_time()
    findings = locate(list(documents.values()), hidden)
    spent = time.process_time() - begun
    judged = [
        judge(finding, truth, documents) for finding, truth in zip(findings, truths, strict=True) if finding.place
    ]
    for method in ("all", *METHODS):
        some = [one for one in judged if method in ("all", one.method)]
        if some:
            print(
                f"| {name} | {method} | {len(truths)} | {len(some) / len(truths):.3f} | {_share(some, 'span')} "
                f"| {_share(some, 'first')} | {_share(some, 'sentence')} | {_share(some, 'paragraph')} "
                f"| {sum(one.elsewhere for one in some)} |"
            )
    return spent


def _share(judged: Sequence[Judged], what: str) -> str:
    hits = sum(getattr(one, what) for one in judged)
    return f"{hits / len(judged):.3f}"


def run_without(name: str, documents: Mapping[str, Document], truths: Sequence[Example]) -> None:
    """Blank out the true paragraphs of a tenth of the questions, three times, and count what is sure all the same."""
    sure = 0
    for part in range(REPEATS):
        asked = truths[part::10]
        blanked = {key: _without(document, asked) for key, document in documents.items()}
        hidden = [replace(one, evidence=()) for one in asked]
        sure += sum(finding.place is not None for finding in locate(list(blanked.values()), hidden))
    count = sum(len(truths[part::10]) for part in range(REPEATS))
    print(f"| {name} | {count} | {sure / count:.3f} |")


def _without(document: Document, asked: Sequence[Example]) -> Document:
    spans = [p.span for one in asked for fact in one.evidence for p in fact if p.span.doc_id == document.id]
    text = document.text
    for span in spans:
        wide = _widened(span, _paragraphs(document.text))
        text = text[: wide.start] + " " * len(wide) + text[wide.end :]
    return replace(document, text=text)


def main(folder: Path) -> None:
    set_environment_defaults()
    dataset = load_dataset(folder)
    documents = {document.id: document for document in dataset.corpus.documents}
    truths = {name: [one for one in getattr(dataset, name) if one.answers and one.evidence] for name in SPLITS}
    paraphrases: dict[str, str] = json.loads(PARAPHRASES.read_text(encoding="utf-8"))
    print("| split | method | questions | located | right span | first place | sentence | paragraph | several places |")
    print("|---|---|---|---|---|---|---|---|---|")
    spent = sum(run(name, documents, examples, {}) for name, examples in truths.items())
    for name, examples in truths.items():
        if some := [one for one in examples if one.id in paraphrases]:
            run(f"{name}, paraphrased", documents, some, paraphrases)
    both = [one for name in SPLITS[1:] for one in truths[name] if one.id in paraphrases]
    if both:
        run("validation + test, paraphrased", documents, both, paraphrases)
    print(f"\n{sum(map(len, truths.values()))} questions in {spent:.1f} s of CPU\n")
    print("| split, true paragraphs taken away | questions | located all the same |\n|---|---|---|")
    for name, examples in truths.items():
        run_without(name, documents, examples)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
