"""A run's rows as a table, and the prompts beside it: what a person reads to judge the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optimize.compiling.candidate import Candidate
from optimize.data.example import Example, gold_text
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.reporting.insight_funnel import Fate, funnel
from programs.corpus import Corpus
from programs.types import Span

TABLE_TAG = {"mlflow.loggedArtifacts": '[{"path": "rows.json", "type": "table"}]'}
"""What makes MLflow's pages show the artifact as a table."""


def rows_table(
    evaluation: Evaluation, examples: Mapping[str, Example], corpus: Corpus, stages: Mapping[str, Fate] | None = None
) -> str:
    """The rows as a table in MLflow's own form, with the texts that a person needs to judge them.

    Args:
        evaluation: The rows.
        examples: Examples by id.
        corpus: Holds the passages.
        stages: Example id -> the stage of retrieval that lost its gold, where that is known.
    """
    rows = [_cells(row, examples[row.example_id], corpus, stages or {}) for row in evaluation.rows]
    columns = list(rows[0]) if rows else []
    return json.dumps({"columns": columns, "data": [list(row.values()) for row in rows]})


def lost_at(row: Row, stages: Mapping[str, Fate] | None = None) -> str:
    """Where the answer was lost: in retrieval or one of its stages, in the generation; `failed` has none.

    Nothing is lost of a right answer; of a wrong one without evidence it is not known where.
    """
    found = funnel({row.example_id: row}, stages or {})
    if found is not None:
        fate = found.fates[row.example_id]
        return "" if fate == "answered" else fate
    return "failed" if row.score is None else "" if row.score == 1 else "not known"


def text_at(corpus: Corpus, span: Span) -> str:
    """The document's text there."""
    return corpus.document(span.doc_id).text[span.start : span.end]


def _cells(row: Row, example: Example, corpus: Corpus, stages: Mapping[str, Fate]) -> dict[str, Any]:
    passages = [f"[{span.doc_id} {span.start}-{span.end}] {text_at(corpus, span)}" for span in row.spans]
    return {
        "question": example.question,
        "answer": gold_text(example),
        "prediction": row.answer,
        "score": row.score,
        "lost_at": lost_at(row, stages),
        "passages": "\n\n".join(passages),
        "feedback": row.feedback,
        "error": row.error,
        "span_recall": row.measures.get("span_recall"),
        "context_tokens": row.context_tokens,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "usd": row.usd,
        "latency_s": row.latency_s,
        "example_id": row.example_id,
    }


def messages_json(messages: list[dict[str, Any]]) -> str:
    """Rendered messages as an artifact."""
    return json.dumps(messages, ensure_ascii=True, indent=1)


def prompts_text(candidates: list[Candidate], examples: Mapping[str, Example]) -> str:
    """The prompts that an optimizer made, in Markdown."""
    lines: list[str] = []
    for candidate in candidates:
        lines += [f"# {candidate.id}", ""]
        if candidate.parents:
            lines += [f"Made from {', '.join(candidate.parents)}.", ""]
        for name, prompt in candidate.prompts.items():
            lines += [f"## {name}", "", *(f"    {line}" for line in prompt.instructions.splitlines()), ""]
            for demo in prompt.demos:
                known = examples.get(demo.example_id)
                shown = ", ".join(f"{field}: {text}" for field, text in demo.outputs.items())
                lines.append(f"- {known.question if known else demo.example_id} -> {shown}")
            lines.append("")
    return "\n".join(lines) or "Nothing was made.\n"
