"""Questions and answers in the terminal: one, or as many as come."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from optimize.serving.answering import check_question, one_line
from optimize.serving.stages import LMStage, Ranked, SearchStage, Trace, trace
from programs.errors import EndpointError, RagwrightError
from programs.types import Passage

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram

_SHOWN, _BEGINNING = 20, 60
"""Chunks of a list that are shown, and characters of each."""


_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a document or a model might steer a terminal with, or end the program."""


def answer_lines(answer: str, passages: Sequence[Passage]) -> Iterator[str]:
    """An answer with its sources."""
    yield _shown(answer) or "(no answer)"
    for number, passage in enumerate(passages, start=1):
        span = passage.span
        yield _shown(f"\n[{number}] {span.doc_id} {span.start}-{span.end}\n{passage.text.strip()}")


def _shown(text: str) -> str:
    return _UNSHOWN.sub("\ufffd", text)


def chat(exported: ExportedProgram, traced: bool, say: Callable[[str], None] = print) -> None:
    """Answer one question a line until the input ends; each stands on its own. A question that fails ends nothing.

    Args:
        exported: Answers.
        traced: Whether every stage is shown.
        say: Shows a line.

    Raises:
        EndpointError: The LM refuses every call.
    """
    if sys.stdin.isatty():
        say("One question a line, each on its own; Ctrl-D ends.")
    for question in _questions():
        if (problem := check_question(question)) is not None:
            say(f"the question {problem}.\n")
            continue
        for line in _told(exported, question, traced):
            say(line)
        say("")
        if (refusal := exported.lm.engine.refusal) is not None:
            raise EndpointError(refusal)


def _questions() -> Iterator[str]:
    """Lines of the input, without the empty ones; with a prompt where a person types them."""
    if not sys.stdin.isatty():
        yield from _piped()
        return
    # Arrow keys and earlier questions at the prompt.
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line:
            yield line


def _piped() -> Iterator[str]:
    # Bytes that are no UTF-8 come through as halves of surrogate pairs, or not at all: that depends on the locale.
    try:
        for line in sys.stdin:
            if line.strip():
                line.encode()
                yield line.strip()
    except UnicodeError:
        raise RagwrightError("standard input: not UTF-8; save the questions as UTF-8.") from None


def _told(exported: ExportedProgram, question: str, traced: bool) -> Iterable[str]:
    if traced:
        return trace_lines(trace(exported, question))
    try:
        return answer_lines(*exported.ask(question))
    except EndpointError:
        raise
    except Exception as error:  # noqa: BLE001  # a person's program may raise anything, and the next question waits
        return [f"no answer: {one_line(error)}"]


def trace_lines(traced: Trace) -> Iterator[str]:
    """Every stage of a question for a person to read."""
    yield from map(_shown, _traced_lines(traced))


def _traced_lines(traced: Trace) -> Iterator[str]:
    for stage in traced.stages:
        yield from _search_lines(stage) if isinstance(stage, SearchStage) else _lm_lines(stage)
        yield ""
    if traced.error is not None:
        yield f"no answer  {traced.error}"
    else:
        yield f"answer  {traced.answer or '(no answer)'}"
    for number, passage in enumerate(traced.passages, start=1):
        yield f"  [{number}] {passage.span.doc_id} {passage.span.start}-{passage.span.end}"
    yield f"{traced.seconds:.3f} s in all"


def _search_lines(stage: SearchStage) -> Iterator[str]:
    """The list in its last order, with the place that each chunk had before."""
    kept = sum(one.fate == "kept" for one in stage.reranked)
    yield f"search  {stage.query}"
    yield (
        f"  {len(stage.retrieved)} retrieved, {kept} kept, {len(stage.passages)} passages for the LM, "
        f"{stage.seconds:.3f} s"
    )
    yield f"  {'rank':>4} {'score':>8}   {'retrieved as':<16} {'':<8} where and what"
    first = {one.rank: one for one in stage.retrieved}
    for one in stage.reranked[:_SHOWN]:
        before = first[one.before or one.rank]
        place = f"{before.rank} ({before.score:.4g})"
        fate = "" if one.fate == "kept" else one.fate
        yield f"  {one.rank:>4} {one.score:>8.4g}   {place:<16} {fate:<8} {_where(one)}"
    if len(stage.reranked) > _SHOWN:
        yield f"  and {len(stage.reranked) - _SHOWN} more"


def _where(one: Ranked) -> str:
    words = " ".join(one.text.split())
    beginning = words if len(words) <= _BEGINNING else words[: _BEGINNING - 1] + "…"
    return f"{one.span.doc_id} {one.span.start}-{one.span.end}  {beginning}"


def _lm_lines(stage: LMStage) -> Iterator[str]:
    yield "lm"
    for message in stage.messages:
        yield f"  --- {message.get('role')}"
        yield from (f"  {line}" for line in str(message.get("content")).splitlines())
    for output in stage.outputs:
        yield "  --- said"
        yield from (f"  {line}" for line in output.splitlines() or [""])
    if stage.error is not None:
        yield f"  --- failed: {stage.error}"
    if (call := stage.record) is not None:
        price = "" if call.usd is None else f", {call.usd:.6f} USD"
        source = "" if call.paid else ", from the cache: as recorded the first time"
        cached = f" ({call.cached_prompt_tokens} from its prefix cache)" if call.cached_prompt_tokens else ""
        yield (
            f"  --- {call.prompt_tokens} tokens read{cached}, {call.completion_tokens} written, "
            f"{call.latency_s:.3f} s{price}{source}"
        )
