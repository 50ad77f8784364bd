"""The command line's part about exported programs at work. Heavy imports stand inside the commands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize.cli.options import RUNS, Json, Runs, console, print_json
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram
    from optimize.runs.progress import Progress
    from optimize.serving.evaluating import Measured

Export = Annotated[Path, typer.Argument(help="An export folder.", metavar="EXPORT")]
Threads = Annotated[int | None, typer.Option(help="Questions at the same time; the export's lm.threads.", min=1)]


def evaluate(
    target: Annotated[Path, typer.Argument(help="An export folder, or a study file for its baseline.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    limit: Annotated[int | None, typer.Option(help="At most so many questions.", min=1)] = None,
    fail_under: Annotated[float | None, typer.Option(help="Exit with 1 if the score is below.", min=0, max=1)] = None,
    fail_if_fallen: Annotated[bool, typer.Option(help="Exit with 1 if the score has fallen since the study.")] = False,
    corpus: Annotated[Path | None, typer.Option(help="Where the export's documents are now.")] = None,
    adopt: Annotated[bool, typer.Option(help="Make the export one of the documents as they are now.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Score an exported program, or a study's baseline, with the documents as they are now; can gate a build."""
    from optimize.serving.evaluating import evaluate_target

    with _progress(json_) as progress:
        measured = evaluate_target(target, split, limit, runs, progress, corpus)
    if json_:
        print_json(measured.as_json())
    else:
        _print_measured(measured)
    if adopt:
        _adopt(measured, json_)
    summary, compared = measured.summary, measured.comparison
    if fail_under is not None and not summary.score >= fail_under:
        raise RagwrightError(f"the score {summary.score:.4f} is below --fail-under {fail_under}.")
    if fail_if_fallen and compared is not None and compared.standing == "fallen":
        raise RagwrightError(f"--fail-if-fallen: {compared.sentence}")


def _print_measured(measured: Measured) -> None:
    summary = measured.summary
    for line in measured.changes:
        print(line)
    if measured.notes:
        print(f"{len(measured.notes)} notes on the data set, such as: {measured.notes[0]}")
    print(
        f"score {summary.score:.4f} ± {summary.stderr:.4f}  n {summary.n}  failures {summary.failures}  "
        f"empty {summary.empty_answers}  tokens/question {summary.prompt_tokens / summary.n:.0f}"
    )
    if measured.comparison is not None:
        print(measured.comparison.sentence)


def _adopt(measured: Measured, json_: bool) -> None:
    from optimize.exporting.exported import adopt_changes

    if not measured.changes:
        raise RagwrightError("--adopt: nothing has changed, so there is nothing to adopt.")
    adopt_changes(measured.exported, {"split": measured.split, **measured.summary.as_metrics()})
    if not json_:
        print("adopted: the export is now one of the documents as they are.")


def ask(
    folder: Export,
    question: Annotated[str | None, typer.Argument(help="What you want to know; without it, one question a line.")] = (
        None
    ),
    traced: Annotated[bool, typer.Option("--trace", help="Show what every stage did.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Answer a question with an exported program, with its sources; without a question, chat in the terminal."""
    from optimize.exporting.exported import load_export
    from optimize.serving.answering import check_question
    from optimize.serving.asking import chat

    if question is None:
        if json_:
            raise typer.BadParameter("--json needs a question; for many, ragwright predict.")
        chat(load_export(folder, runs), traced)
        return
    if (problem := check_question(question)) is not None:
        raise RagwrightError(f"the question {problem}.")
    exported = load_export(folder, runs)
    if traced:
        _ask_traced(exported, question, json_)
    else:
        _ask(exported, question, json_)


def _ask(exported: ExportedProgram, question: str, json_: bool) -> None:
    from optimize.serving.asking import answer_lines

    answer, passages = exported.ask(question)
    if json_:
        print_json({"answer": answer, "sources": [{**asdict(p.span), "text": p.text} for p in passages]})
        return
    for line in answer_lines(answer, passages):
        print(line)


def _ask_traced(exported: ExportedProgram, question: str, json_: bool) -> None:
    from optimize.serving.asking import trace_lines
    from optimize.serving.stages import trace

    found = trace(exported, question)
    if json_:
        print_json(found.as_json())
    else:
        for line in trace_lines(found):
            print(line)
    if found.error is not None:
        raise RagwrightError(f"no answer: {found.error}")


def predict(
    folder: Export,
    questions: Annotated[Path, typer.Argument(help="JSON lines with a question, and an id where wanted.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the answers go, as JSON lines.")],
    threads: Threads = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Answer a file of questions, in order; the same command goes on after whatever ended it."""
    from optimize.exporting.exported import load_export
    from optimize.serving.predicting import predict as predict_all
    from optimize.serving.predicting_questions import read_questions

    # Bad lines are said before an index is opened.
    read_questions(questions)
    exported = load_export(folder, runs)
    with _progress(json_) as progress:
        done = predict_all(exported, questions, out, threads or exported.spec.threads, progress)
    if json_:
        print_json(done.as_json())
    else:
        price = "price unknown" if done.usd is None else f"{done.usd:.4f} USD"
        print(
            f"{done.answered} of {done.questions} answered ({done.before} of them before), {done.calls} LM calls "
            f"({done.paid_calls} made), {done.prompt_tokens + done.completion_tokens} tokens, {price}\n{done.out}"
        )
    if done.failed:
        raise RagwrightError(f"{done.failed} questions failed, see `error` in their rows; the same command asks again.")


def serve(
    folder: Export,
    host: Annotated[str, typer.Option(help="Another address than this machine's own is open to others.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.", min=0, max=65535)] = 8321,
    threads: Threads = None,
    workers: Annotated[int, typer.Option(help="Processes; more answer more, with an LM elsewhere.", min=1, max=64)] = 1,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that clients have to send.")
    ] = None,
    runs: Runs = RUNS,
) -> None:
    """Answer over HTTP with an exported program, also by OpenAI's chat protocol; Ctrl-C ends it."""
    from optimize.serving.server import Settings
    from optimize.serving.server import serve as serve_until_ended

    serve_until_ended(Settings(folder, runs, host, port, threads, workers, key_env))


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A bar as long as the block runs; silence for a machine."""
    import logging

    import dspy  # noqa: F401  # it sets its own level when it is imported

    from optimize.runs.progress import Silence, Terminal

    # What DSPy logs of failed and truncated calls stands in the rows.
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    where = console(quiet)
    if where is None:
        yield Silence()
        return
    terminal = Terminal(where)
    with terminal.live():
        yield terminal
