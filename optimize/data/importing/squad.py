"""SQuAD's format, 1.1 (Rajpurkar et al. 2016) and 2.0 (Rajpurkar et al. 2018)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from optimize.data.example import Example
from optimize.data.importing.material import Context, Material, as_evidence, unique_slug
from optimize.data.splits import FEW_DOCUMENTS
from programs.errors import Problem, ProblemsError, RagwrightError
from programs.extraction import clean
from programs.types import Document


class _Answer(BaseModel):
    text: str
    answer_start: int


class _Question(BaseModel):
    id: str
    question: str
    answers: list[_Answer] = []
    is_impossible: bool = False


class _Paragraph(BaseModel):
    context: str
    qas: list[_Question]


class _Article(BaseModel):
    title: str
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


def read_squad(file: Path) -> Material:
    """Read a file: each article is a document, its paragraphs joined by blank lines.

    Every question declares its group, the article or, with few of them, the paragraph: impossible questions have no
    evidence that would tell.

    Raises:
        ProblemsError: Every question that cannot be used, with article and id.
        RagwrightError: The file is missing or in another format.
    """
    articles = _parse(file).data
    taken: set[str] = set()
    ids: set[str] = set()
    documents: list[Document] = []
    examples: list[Example] = []
    problems: list[Problem] = []
    for article in articles:
        doc_id = unique_slug(article.title, taken)
        contexts = list(_contexts(article, doc_id))
        text = "\n\n".join(clean(context.text) for context in contexts)
        documents.append(Document(doc_id, text, article.title.replace("_", " ")))
        for number, (paragraph, context) in enumerate(zip(article.paragraphs, contexts, strict=True)):
            group = doc_id if len(articles) >= FEW_DOCUMENTS else f"{doc_id}@{number}"
            for question in paragraph.qas:
                found = _problems(question, context, ids)
                ids.add(question.id)
                problems += [Problem(f"{file}: {article.title}: {question.id}", message) for message in found]
                examples += [] if found else [_example(question, context, group)]
    if problems:
        raise ProblemsError(problems)
    return Material(tuple(documents), tuple(examples))


def _parse(file: Path) -> _File:
    try:
        return _File.model_validate(json.loads(file.read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, IsADirectoryError):
        raise RagwrightError(f"{file}: no such file; a JSON file in SQuAD's format is needed.") from None
    except UnicodeDecodeError as error:
        raise RagwrightError(f"{file}: not UTF-8 at byte {error.start}; save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise RagwrightError(f"{file}:{error.lineno}: not JSON: {error.msg}; is it SQuAD's format?") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise RagwrightError(f"{file}: not SQuAD's format: {place}: {first['msg'].lower()}.") from None


def _contexts(article: _Article, doc_id: str) -> Iterator[Context]:
    offset = 0
    for paragraph in article.paragraphs:
        yield Context(paragraph.context, doc_id, offset)
        offset += len(clean(paragraph.context)) + len("\n\n")


def _problems(question: _Question, context: Context, ids: set[str]) -> list[str]:
    """What is wrong with a question."""
    found = [f"the id {question.id!r} is used more than once"] if question.id in ids else []
    if not question.question.strip():
        found.append("the question is blank")
    if question.is_impossible:
        return found
    if not question.answers:
        found.append("no answer, and not marked is_impossible")
    for answer in question.answers:
        if not answer.text.strip():
            found.append("an answer is blank")
        elif context.place(answer.text, answer.answer_start) is None:
            found.append(f"the answer {answer.text!r} is not at answer_start {answer.answer_start}")
    return found


def _example(question: _Question, context: Context, group: str) -> Example:
    answers = [] if question.is_impossible else question.answers
    places = [context.place(answer.text, answer.answer_start) for answer in answers]
    return Example(
        id=question.id,
        question=question.question.strip(),
        answers=tuple(dict.fromkeys(answer.text for answer in answers)),
        evidence=as_evidence(place for place in places if place is not None),
        group=group,
    )
