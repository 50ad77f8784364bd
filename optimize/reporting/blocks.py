"""What a report is made of, apart from how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list without an order."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to copy into a shell."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header.

    Attributes:
        header: Names of the columns.
        rows: As many cells each as the header has.
        numeric: Columns whose cells are numbers.
        marked: Rows that stand out.
        name: What it is, in a few words; empty: the heading above says it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, or several side by side.

    Attributes:
        svgs: The drawings.
        caption: What is to be seen, and how far it can be trusted.
        table: Their numbers, for whoever cannot see them; None where they stand in a table beside them.
    """

    svgs: tuple[str, ...]
    caption: str
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Some text of a document.

    Attributes:
        source: Where it lies.
        parts: The text in pieces, each with whether it is gold.
    """

    source: str
    parts: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Side:
    """What one configuration made of a question.

    Attributes:
        name: Which configuration.
        answer: Its answer.
        score: What it is worth, as text.
        remark: What became of the gold, or empty.
        passages: What the LM was shown, best first.
        left_out: Further passages that it was shown.
    """

    name: str
    answer: str
    score: str
    remark: str = ""
    passages: tuple[Excerpt, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One question with what several configurations made of it.

    Attributes:
        question: As asked.
        gold: Acceptable answers, in words.
        sides: The configurations.
        is_open: Whether the passages are shown at once.
    """

    question: str
    gold: str
    sides: tuple[Side, ...]
    is_open: bool = False


Change = Literal["same", "added", "removed", "skipped"]

SIGNS: Mapping[Change, str] = {"same": " ", "added": "+", "removed": "-", "skipped": "@"}
"""What stands before a line that was changed so."""


@dataclass(frozen=True, slots=True)
class Diff:
    """A text before and after.

    Attributes:
        name: Of what.
        lines: What became of each line, and the line; of those skipped, how many there are.
    """

    name: str
    lines: tuple[tuple[Change, str], ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks that are shown when they are asked for.

    Attributes:
        summary: What there is to be seen.
        blocks: That.
    """

    summary: str
    blocks: tuple[Block, ...]


Block = Paragraph | Bullets | Code | Table | Chart | Case | Diff | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number worth a glance: its name, the number, and what to know about it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes:
        title: Its name.
        about: What it is about: label and value.
        word: The verdict.
        detail: Its numbers: a sentence without its capital.
        warnings: What a reader of the numbers must know.
        sections: The rest, in order.
        figures: The few numbers that matter most.
    """

    title: str
    about: tuple[tuple[str, str], ...]
    word: str
    detail: str
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    figures: tuple[Figure, ...] = ()
