"""What the LM is asked to do, as DSPy signatures. Compiling replaces their instructions; the fields stay."""

from __future__ import annotations

import dspy


class Answer(dspy.Signature):
    """Answer the question from the context, in as few words as possible."""

    context: list[str] = dspy.InputField(desc="passages, the best first")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a name, a number or a few words")


class AnswerOrAbstain(dspy.Signature):
    """Answer the question from the context, in as few words as possible.

    If the context does not hold the answer, answer: unanswerable
    """

    context: list[str] = dspy.InputField(desc="passages, the best first")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a name, a number, a few words, or: unanswerable")


class NextQuery(dspy.Signature):
    """Write a short search query for the fact that the question needs and the context lacks."""

    context: list[str] = dspy.InputField(desc="passages found so far")
    question: str = dspy.InputField()
    query: str = dspy.OutputField(desc="a few search words")


class Summary(dspy.Signature):
    """Say in one short sentence what this part of a document is about. Name its subject, so that it can be found."""

    title: str = dspy.InputField(desc="of the document")
    part: str = dspy.InputField(desc="the part of the document")
    about: str = dspy.OutputField(desc="one short sentence")


class SearchQuery(dspy.Signature):
    """Rewrite the question as a short search query that finds its answer."""

    question: str = dspy.InputField()
    query: str = dspy.OutputField(desc="a few search words")


class HypotheticalPassage(dspy.Signature):
    """Write one or two sentences from a document that answers the question. Guess what you do not know."""

    question: str = dspy.InputField()
    passage: str = dspy.OutputField(desc="one or two sentences")


class SearchQueries(dspy.Signature):
    """Write three different short search queries that find the answer to the question: on one line, with ; between."""

    question: str = dspy.InputField()
    queries: str = dspy.OutputField(desc="three search queries on one line, with ; between")
