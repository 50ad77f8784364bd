"""What a report is made of, apart from how it is written down."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing; where none can be shown, its numbers are in a table beside it."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Case:
    """One question with what both configurations made of it.

    Attributes:
        question: As asked.
        gold: Acceptable answers, in words.
        answers: Name of the configuration, its answer, its score.
    """

    question: str
    gold: str
    answers: tuple[tuple[str, str, str], ...]


Block = Paragraph | Bullets | Code | Table | Chart | Case


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


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
    """

    title: str
    about: tuple[tuple[str, str], ...]
    word: str
    detail: str
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())
