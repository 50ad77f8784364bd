"""The questions that `ragwright predict` answers, as read from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from optimize.serving.answering import check_question
from programs.errors import Problem, ProblemsError, RagwrightError

_PROBLEMS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of a questions file.

    Attributes:
        line: Its number, from 1.
        id: As the file says, else the line's number.
        question: As the file says.
    """

    line: int
    id: str
    question: str


def read_questions(file: Path) -> list[Asked]:
    """Read a file of JSON lines with a `question`, and an `id` where one is wanted; other keys are passed over.

    Raises:
        ProblemsError: Every line that cannot be used, by its number.
        RagwrightError: The file cannot be read or is empty.
    """
    try:
        # Not splitlines(): a JSON string may hold U+2028 and its like, which are no line ends here.
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise RagwrightError(f"{file}: not UTF-8 at byte {error.start}; save the file as UTF-8.") from None
    except OSError as error:
        raise RagwrightError(f"{file}: {(error.strerror or str(error)).lower()}; name a file of questions.") from None
    found: list[Asked] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        one = _read_line(line, number)
        if isinstance(one, Asked):
            found.append(one)
        else:
            problems.append(Problem(f"{file}:{number}", one))
    if problems:
        more = len(problems) - _PROBLEMS_SHOWN
        if more > 0:
            problems[_PROBLEMS_SHOWN:] = [Problem(str(file), f"and {more} more lines like these")]
        raise ProblemsError(problems)
    if not found:
        raise RagwrightError(f'{file}: holds no question; write lines such as {{"question": "..."}}.')
    return found


def _read_line(line: str, number: int) -> Asked | str:
    """The question of a line, or what is wrong with it."""
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return "nested too deeply"
    if not isinstance(content, dict) or "question" not in content:
        return 'must be an object with a "question"'
    if (problem := check_question(content["question"])) is not None:
        return f"the question {problem}"
    name = content.get("id", number)
    if isinstance(name, bool) or not isinstance(name, str | int):
        return f"id must be text or a number, got {name!r}"
    try:
        f"{name}{content['question']}".encode()
    except UnicodeEncodeError as error:
        return f"holds {error.object[error.start]!a}, half of a character; write the whole one"
    return Asked(number, str(name), content["question"])
