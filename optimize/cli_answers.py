"""The command line's part about exported programs at work. Heavy imports stand inside the commands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from optimize.cli_options import RUNS, Json, Runs, print_json
from programs.errors import RagwrightError


def evaluate(
    target: Annotated[Path, typer.Argument(help="An export folder, or a study file for its baseline.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    limit: Annotated[int | None, typer.Option(help="At most so many questions.", min=1)] = None,
    fail_under: Annotated[float | None, typer.Option(help="Exit with 1 if the score is below.", min=0, max=1)] = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Score an exported program, or a study's baseline, on a split; can gate a build."""
    from optimize.evaluating import evaluate_target

    summary = evaluate_target(target, split, limit, runs)
    if json_:
        print_json(summary.as_metrics())
    else:
        print(
            f"score {summary.score:.4f} ± {summary.stderr:.4f}  n {summary.n}  failures {summary.failures}  "
            f"empty {summary.empty_answers}  tokens/question {summary.prompt_tokens / summary.n:.0f}"
        )
    if fail_under is not None and not summary.score >= fail_under:
        raise RagwrightError(f"the score {summary.score:.4f} is below --fail-under {fail_under}.")


def ask(
    folder: Annotated[Path, typer.Argument(help="An export folder.", metavar="EXPORT")],
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Answer a question with an exported program, and show the passages that it saw."""
    from optimize.exported import load_export

    answer, passages = load_export(folder, runs).ask(question)
    if json_:
        print_json({"answer": answer, "sources": [{**asdict(p.span), "text": p.text} for p in passages]})
        return
    print(answer or "(no answer)")
    for number, passage in enumerate(passages, start=1):
        span = passage.span
        print(f"\n[{number}] {span.doc_id} {span.start}-{span.end}\n{passage.text.strip()}")
