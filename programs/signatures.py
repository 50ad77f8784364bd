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
