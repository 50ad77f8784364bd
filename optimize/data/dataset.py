"""A data set: a corpus, and questions in three splits that never meet."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optimize.data.example import Example, ExampleError, parse_example
from programs.config import fingerprint
from programs.corpus import Corpus, find_corpus, load_corpus
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.types import Document

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """A data set as read from its folder.

    Attributes:
        name: The folder's name.
        path: The folder.
        corpus: All documents, as in use.
        train: Gives demos and feedback to what writes prompts.
        validation: What the search sees.
        test: Opened for the verdict only.
        notes: What a person should know but need not mend, such as quotes found again elsewhere.
    """

    name: str
    path: Path
    corpus: Corpus
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = ()

    @property
    def examples(self) -> tuple[Example, ...]:
        """All examples of the three splits."""
        return self.train + self.validation + self.test

    @property
    def abstains(self) -> bool:
        """Whether some question cannot be answered from the corpus."""
        return any(example.answers == () for example in self.examples)

    @property
    def unknown_answers(self) -> int:
        """Number of questions whose answers are not known."""
        return sum(example.answers is None for example in self.examples)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over the corpus and every example with its split."""
        splits = {name: [example.as_json() for example in getattr(self, name)] for name in SPLITS}
        return fingerprint([self.corpus.fingerprint, splits])


def load_dataset(path: Path) -> Dataset:
    """Read a data set folder.

    Raises:
        ProblemsError: Every problem of every file, each with file and line; those of the corpus come alone, since
            without it no evidence can be checked.
        RagwrightError: The folder or its corpus is missing.
    """
    if not path.is_dir():
        raise RagwrightError(
            f"{path}: no such data set folder; make one with `ragwright init` or `ragwright data import`."
        )
    corpus = load_corpus(find_corpus(path))
    documents = {document.id: document for document in corpus.documents}
    problems: list[Problem] = []
    notes = list(corpus.warnings)
    splits = {name: _read_split(path / f"{name}.jsonl", documents, problems, notes) for name in SPLITS}
    problems += _repeats(path, splits)
    if problems:
        raise ProblemsError(problems)
    return Dataset(path.resolve().name, path, corpus, notes=tuple(notes), **_unnumbered(splits))


def require_answers(dataset: Dataset) -> None:
    """Make sure that answers can be scored.

    Raises:
        RagwrightError: Some question's answers are not known.
    """
    if count := dataset.unknown_answers:
        raise RagwrightError(
            f"{count} questions of {dataset.name} have no known answers, so only `ragwright screen` can use them."
        )


Numbered = list[tuple[int, Example]]


def _unnumbered(splits: Mapping[str, Numbered]) -> dict[str, tuple[Example, ...]]:
    return {name: tuple(example for _, example in numbered) for name, numbered in splits.items()}


def _read_split(file: Path, documents: Mapping[str, Document], problems: list[Problem], notes: list[str]) -> Numbered:
    if not file.is_file():
        problems.append(
            Problem(str(file), "missing", "`ragwright data split` makes the three splits from questions.jsonl")
        )
        return []
    numbered = read_examples(file, documents, problems, notes)
    if not numbered and not any(problem.place.startswith(str(file)) for problem in problems):
        problems.append(Problem(str(file), "holds no example", "each split needs some questions"))
    return numbered


def read_examples(file: Path, documents: Mapping[str, Document], problems: list[Problem], notes: list[str]) -> Numbered:
    """Read the examples of a file with their line numbers, adding what is wrong to `problems`, the rest to `notes`."""
    numbered: Numbered = []
    for number, line in enumerate(_lines(file, problems), start=1):
        if not line.strip():
            continue
        try:
            example, moved = parse_example(json.loads(line), documents, default_id=f"{file.stem}-{number}")
        except json.JSONDecodeError as error:
            what = f"not JSON: {error.msg} at column {error.colno}"
            problems.append(Problem(f"{file}:{number}", what, "one object a line"))
        except RecursionError:
            problems.append(Problem(f"{file}:{number}", "nested too deeply", "one object a line"))
        except ExampleError as error:
            problems.append(Problem(f"{file}:{number}", str(error)))
        else:
            numbered.append((number, example))
            notes += [f"{file}:{number}: {note}" for note in moved]
    return numbered


def _lines(file: Path, problems: list[Problem]) -> list[str]:
    try:
        # Not splitlines(): a JSON string may hold U+2028 and its like, which are no line ends here.
        return file.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        problems.append(Problem(str(file), f"not UTF-8 at byte {error.start}", "save the file as UTF-8"))
        return []


def normalized_question(question: str) -> str:
    """The question without case, punctuation and spacing: what makes two questions the same.

    Symbols (`C++`) and the marks of letters (Devanagari vowels) tell questions apart, so they stay.
    """
    text = unicodedata.normalize("NFC", question.casefold())
    words = "".join(" " if unicodedata.category(character)[0] == "P" else character for character in text).split()
    return " ".join(words) or question.strip()


def _repeats(path: Path, splits: Mapping[str, Numbered]) -> list[Problem]:
    """Ids used twice, and questions asked in two splits."""
    ids: dict[str, str] = {}
    questions: dict[str, tuple[str, str]] = {}
    problems = []
    for split, numbered in splits.items():
        for number, example in numbered:
            place = f"{path / split}.jsonl:{number}"
            if example.id in ids:
                problems.append(Problem(place, f"id {example.id!r} is already used at {ids[example.id]}"))
            ids.setdefault(example.id, place)
            key = normalized_question(example.question)
            earlier_split, earlier = questions.setdefault(key, (split, place))
            if earlier_split != split:
                problems.append(Problem(place, f"the same question is asked at {earlier}", "keep it in one split"))
    return problems


def write_dataset(path: Path, card: Mapping[str, Any], splits: Mapping[str, Iterable[Example]], about: str) -> None:
    """Write the three split files and the card of a data set whose corpus is already in place."""
    counts = {}
    for name in SPLITS:
        examples = list(splits[name])
        write_examples(path / f"{name}.jsonl", examples)
        counts[name] = len(examples)
    front = yaml.safe_dump({**card, "counts": counts}, sort_keys=False, allow_unicode=True)
    (path / "README.md").write_text(f"---\n{front}---\n\n# {path.name}\n\n{about}\n", encoding="utf-8")


def write_examples(file: Path, examples: Iterable[Example]) -> None:
    """Write one example a line."""
    lines = [json.dumps(example.as_json(), ensure_ascii=False) for example in examples]
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
