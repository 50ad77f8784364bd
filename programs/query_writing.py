"""Programs in which the LM first writes what to search by, then answers from what was found."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import dspy
from dspy.utils.exceptions import AdapterParseError

from programs.fusion import fuse
from programs.rag import SearchCall
from programs.signatures import Answer, HypotheticalPassage, SearchQueries, SearchQuery
from programs.types import Passage

QUERIES = 3
"""Queries that `MultiQuery` takes from the LM beside the question; `SearchQueries` asks for as many."""

_ITEM = re.compile(r"[;\n]")
_NUMBER = re.compile(r"(?:^|\s)[1-9][.)]\s")
_LABEL = re.compile(
    r"\A(?:[-*\u2022]|(?:(?:search )?query ?)?[1-9] ?[.):]|(?:search )?query:)(?:\s+|\Z)", re.IGNORECASE
)


class QueryWriting(dspy.Module):
    """One call to write, a search by what was written, one call to answer. Subclasses say what is searched by.

    Where the LM writes nothing, or nothing that the prompt format can read, the question itself is searched for: the
    answer may still be found. The prediction's `queries` show it. Errors of the LM are not caught.

    Args:
        search: Returns the passages for a query, best first.
        signature: A DSPy signature from `context` and `question` to `answer`.
    """

    writes: ClassVar[type[dspy.Signature]]
    """From `question` to one text."""

    def __init__(self, search: SearchCall, signature: type[dspy.Signature] = Answer) -> None:
        super().__init__()
        self.search = search
        self.write = dspy.Predict(self.writes)
        self.generate = dspy.Predict(signature)

    def queries(self, question: str, written: str) -> tuple[str, ...]:
        """What is searched by: at least one query.

        Args:
            question: As asked.
            written: What the LM wrote; may be empty.
        """
        raise NotImplementedError

    def forward(self, question: str) -> dspy.Prediction:
        """Answer `question`; the prediction also holds the `queries` and the `passages` that the LM was shown."""
        queries = self.queries(question, self._written(question))
        passages = _find(self.search, queries)
        generated = self.generate(context=[passage.text for passage in passages], question=question)
        return dspy.Prediction(answer=generated.answer, passages=passages, queries=queries)

    def demo_inputs(self, predictor: str, question: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs that `predictor` would get for `question`; an answer's passages are those of `question` itself."""
        if predictor == "write":
            return {"question": question}
        return {"context": [passage.text for passage in self.search(question)], "question": question}

    def _written(self, question: str) -> str:
        [name] = self.writes.output_fields
        try:
            return str(self.write(question=question)[name] or "").strip()
        except AdapterParseError:
            return ""


class Rewrite(QueryWriting):
    """The LM rewrites the question into a search query, which is searched for in its place."""

    writes = SearchQuery

    def queries(self, question: str, written: str) -> tuple[str, ...]:
        """What was written, or the question."""
        return (written or question,)


class HyDE(QueryWriting):
    """The LM guesses a passage that answers the question; passages like the guess are likely to hold the answer.

    Gao, Ma, Lin and Callan, "Precise Zero-Shot Dense Retrieval without Relevance Labels" (arXiv:2212.10496). There the
    vectors of guesses and question are averaged; here the search is by one text of both, so that words count as well.
    """

    writes = HypotheticalPassage

    def queries(self, question: str, written: str) -> tuple[str, ...]:
        """The question and the guess in one text."""
        return (f"{question} {written}".strip(),)


class MultiQuery(QueryWriting):
    """The LM writes several queries; what they and the question find is fused by ranks.

    As many passages are shown as the longest of these searches finds, so that it costs no more tokens to answer. The
    fusion is that of `programs.fusion`.
    """

    writes = SearchQueries

    def queries(self, question: str, written: str) -> tuple[str, ...]:
        """The question, then at most `QUERIES` written ones that differ from it and from each other."""
        queries: dict[str, str] = {}
        for query in (question, *read_queries(written)):
            queries.setdefault(_plain(query), query)
        return tuple(queries.values())[: QUERIES + 1]


def read_queries(written: str) -> list[str]:
    """The queries in a text that lists them: by semicolons, lines or numbers, or as a list in brackets.

    Numbers, bullets, labels and quotation marks around a query are taken off; a line that ends with a colon announces
    the others and is no query.
    """
    text = written.strip()
    items = _literal_list(text)
    if items is None:
        # Numbers part queries only where the first one is numbered; elsewhere they belong to a query.
        numbered = _NUMBER.match(text) and not _ITEM.search(text)
        items = (_NUMBER if numbered else _ITEM).split(text)
    queries = [_LABEL.sub("", item.strip(), count=1).strip(" \t\"'`*,") for item in items]
    return [query for query in queries if _plain(query) and not query.endswith(":")]


def _literal_list(text: str) -> list[str] | None:
    """The items of a list that is written as Python or JSON write it; None for any other text."""
    if not text.startswith("["):
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return [str(item) for item in items] if isinstance(items, list) else None


def _plain(query: str) -> str:
    """The words of a query; two queries with the same ones are one."""
    return " ".join(re.findall(r"\w+", query.casefold()))


def _find(search: SearchCall, queries: Sequence[str]) -> tuple[Passage, ...]:
    """The passages of one search; those of several fused, no more than the longest of them."""
    rankings = [tuple(search(query)) for query in queries]
    if len(rankings) == 1:
        return rankings[0]
    return tuple(fuse(rankings)[: max(map(len, rankings))])
