"""A question with its answers and its evidence, as read from a line of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from programs.types import Document, Span


@dataclass(frozen=True, slots=True)
class Place:
    """One place in the corpus that states a fact."""

    span: Span
    quote: str


Fact = tuple[Place, ...]
"""The alternative places of one fact: any one of them is enough."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question.

    Attributes:
        id: Unique in its data set.
        question: What is asked.
        answers: Acceptable answers; empty where the corpus cannot answer and abstaining is right; None where they are
            not known, so that only retrieval can be measured.
        evidence: The facts that are all needed; empty where the evidence is not known.
        group: A declared group for splitting, or empty.
    """

    id: str
    question: str
    answers: tuple[str, ...] | None
    evidence: tuple[Fact, ...] = ()
    group: str = ""

    @property
    def known_answers(self) -> tuple[str, ...]:
        """The answers, for what runs only where they are known; `require_answers` of a data set makes sure of it."""
        assert self.answers is not None, f"the answers to {self.id!r} are not known"
        return self.answers

    @property
    def documents(self) -> frozenset[str]:
        """Ids of the documents that the evidence lies in."""
        return frozenset(place.span.doc_id for fact in self.evidence for place in fact)

    def as_json(self) -> dict[str, Any]:
        """The example as a line of a data set file."""
        answers = None if self.answers is None else list(self.answers)
        line: dict[str, Any] = {"id": self.id, "question": self.question, "answers": answers}
        if self.evidence:
            line["evidence"] = [[_place_json(place) for place in fact] for fact in self.evidence]
        if self.group:
            line["group"] = self.group
        return line


def _place_json(place: Place) -> dict[str, Any]:
    span = place.span
    return {"doc_id": span.doc_id, "start": span.start, "end": span.end, "quote": place.quote}


class ExampleError(ValueError):
    """A line is not an example. The message says what is wrong; the reader adds file and line."""


_KEYS = {"id", "question", "answers", "answer", "evidence", "group"}
_PLACE_KEYS = {"doc_id", "start", "end", "quote"}


def parse_example(line: object, documents: Mapping[str, Document], default_id: str) -> tuple[Example, list[str]]:
    """Read one example; `answer` may stand for `answers`, and `id` may be missing. An `answers` of null: not known.

    Returns:
        The example, and notes about quotes that had moved and were found again.

    Raises:
        ExampleError: Anything is not as the format asks.
    """
    if not isinstance(line, dict):
        raise ExampleError(f"a JSON object is needed, got {type(line).__name__}")
    if unknown := sorted(set(line) - _KEYS):
        raise ExampleError(f"unknown key {unknown[0]!r}; known keys: {', '.join(sorted(_KEYS))}")
    notes: list[str] = []
    facts = line.get("evidence", [])
    if not isinstance(facts, list) or not all(isinstance(fact, list) and fact for fact in facts):
        raise ExampleError("'evidence' is a list of facts, each a non-empty list of places")
    example = Example(
        id=_text(line, "id") if "id" in line else default_id,
        question=_text(line, "question"),
        answers=_answers(line),
        evidence=tuple(tuple(_place(place, documents, notes) for place in fact) for fact in facts),
        group=_text(line, "group") if "group" in line else "",
    )
    return example, notes


def _text(line: Mapping[str, Any], key: str) -> str:
    if key not in line:
        raise ExampleError(f"{key!r} is missing")
    if not _is_text(line[key]):
        raise ExampleError(f"{key!r} must be a non-empty string, got {line[key]!r:.80}")
    return str(line[key])


def _is_text(value: object) -> bool:
    """Whether a value is a string with something to see that can be written to a file; a lone surrogate cannot."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def _answers(line: Mapping[str, Any]) -> tuple[str, ...] | None:
    if ("answer" in line) == ("answers" in line):
        raise ExampleError(
            "give 'answers' (a list, empty if the corpus cannot answer, null if not known) or 'answer' (a string)"
        )
    if "answers" in line and line["answers"] is None:
        return None
    answers = line["answers"] if "answers" in line else [line["answer"]]
    if not isinstance(answers, list) or not all(map(_is_text, answers)):
        raise ExampleError(f"'answers' must be a list of non-empty strings, got {answers!r:.80}")
    return tuple(answers)


def _place(place: object, documents: Mapping[str, Document], notes: list[str]) -> Place:
    if not isinstance(place, dict) or not set(place) <= _PLACE_KEYS or "doc_id" not in place:
        raise ExampleError(f"a place has the keys {', '.join(sorted(_PLACE_KEYS))}, got {place!r:.80}")
    document = documents.get(_text(place, "doc_id"))
    if document is None:
        raise ExampleError(f"no document {place['doc_id']!r} in the corpus")
    start, end, quote = place.get("start"), place.get("end"), place.get("quote")
    if quote is not None and (not isinstance(quote, str) or not quote):
        raise ExampleError(f"'quote' must be a non-empty string, got {quote!r:.80}")
    if type(start) is int and type(end) is int and 0 <= start < end <= len(document.text):
        found = document.text[start:end]
        if quote is None or quote == found:
            return Place(Span(document.id, start, end), found)
    if quote is None:
        raise ExampleError(f"span {start!r}:{end!r} does not fit {document.id!r} ({len(document.text)} characters)")
    return _find_again(quote, document, start, notes)


def _find_again(quote: str, document: Document, start: object, notes: list[str]) -> Place:
    """Locate a quote whose offsets are missing or no longer right; only a single occurrence is sure."""
    first = document.text.find(quote)
    if first < 0:
        raise ExampleError(f"the quote {quote[:60]!r} is not in {document.id!r}")
    if document.text.find(quote, first + 1) >= 0:
        raise ExampleError(f"the quote {quote[:60]!r} is not at {start!r} and occurs more than once in {document.id!r}")
    if start is not None:
        notes.append(f"a quote in {document.id!r} moved from {start} to {first}")
    return Place(Span(document.id, first, first + len(quote)), quote)


def gold_text(example: Example) -> str:
    """The acceptable answers on one line."""
    if example.answers is None:
        return "(not known)"
    return " | ".join(example.answers) or "(the corpus cannot answer)"
