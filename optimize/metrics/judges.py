"""Metrics that a judge LM grades, behind one table.

A reply without a rating is a failure, never a zero. Where several answers are right, a judge is shown the one that
shares most words with the answer.
"""

from __future__ import annotations

from optimize.metrics.judges_dspy import complete_and_grounded, semantic_f1
from optimize.metrics.judges_mlflow import mlflow_judge
from optimize.metrics.judging import JudgedMetric as JudgedMetric

JUDGES: dict[str, JudgedMetric] = {
    judged.name: judged
    for judged in (
        # Whether the answer says what the gold answer says; more than that does no harm.
        mlflow_judge(
            "correctness",
            {"answers"},
            "correctness",
            lambda asked: {"request": asked.question, "response": asked.answer, "expected_response": asked.gold},
            declined=0.0,
            invented=0.0,
        ),
        # Whether the passages say what the answer says. Who declines claims nothing.
        mlflow_judge(
            "groundedness",
            {"context"},
            "groundedness",
            lambda asked: {"request": asked.question, "response": asked.answer, "context": asked.context},
            declined=1.0,
            invented=None,
        ),
        # Whether the answer is about the question, be it right or wrong.
        mlflow_judge(
            "relevance_to_query",
            set(),
            "relevance_to_query",
            lambda asked: {"request": asked.question, "context": asked.answer},
            declined=0.0,
            invented=None,
        ),
        # Whether the passages say what the gold answer says: retrieval alone, whatever the answer.
        mlflow_judge(
            "retrieval_sufficiency",
            {"answers", "context"},
            "context_sufficiency",
            lambda asked: {
                "request": asked.question,
                "context": asked.context,
                "expected_response": asked.example.known_answers[0],
            },
            declined=None,
            invented=0.0,
        ),
        mlflow_judge("safety", set(), "safety", lambda asked: {"content": asked.answer}, declined=1.0, invented=None),
        JudgedMetric("semantic_f1", frozenset({"answers", "judge"}), semantic_f1, 1, "dspy"),
        JudgedMetric(
            "complete_and_grounded", frozenset({"answers", "context", "judge"}), complete_and_grounded, 2, "dspy"
        ),
    )
}
"""Name -> metric that still needs its judge."""
