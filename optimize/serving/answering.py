"""An export that answers strangers: what goes wrong is said in kinds, and its LM may go away and come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from optimize.evaluation.rows import money
from optimize.serving.cache import ServedCache
from optimize.serving.direct import Ask, DirectRAG, open_ask
from optimize.serving.search import hearing
from programs.errors import EndpointError, RagwrightError
from programs.metering import CallRecord, MeteredEngine, collect_calls
from programs.rag import RAG
from programs.types import Passage

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram

RETRY_AFTER_S = 5
"""Seconds for which an LM that was found dead is not asked again."""

Found = Callable[[tuple[Passage, ...]], None]

QUESTION_LIMIT = 8_000
"""Longest question, in characters: longer ones are documents, and crowd the passages out of the LM's context."""


class AnswerError(RagwrightError):
    """A question got no answer. The message is fit for whoever asked: no address, no path, no key.

    Args:
        message: What is wrong and what to do.
        status: The HTTP status that says so.
        code: One word for programs.
        detail: For whoever runs the server; empty where the message says it all.
        retry_after_s: When to try again; None where that would not help.
    """

    def __init__(
        self, message: str, status: int, code: str, detail: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.detail, self.retry_after_s = status, code, detail, retry_after_s


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, what it was drawn from, and what it took.

    Attributes:
        answer: May be empty.
        passages: Those that the LM was shown, best first.
        calls: The LM calls, cached ones included.
    """

    answer: str
    passages: tuple[Passage, ...]
    calls: tuple[CallRecord, ...]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The passages as JSON: where they lie, in characters of the document's text, and what they say."""
        return sources_of(self.passages)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the LM read, as recorded the first time."""
        return sum(call.prompt_tokens for call in self.calls)

    @property
    def completion_tokens(self) -> int:
        """Tokens that the LM wrote, as recorded the first time."""
        return sum(call.completion_tokens for call in self.calls)

    @property
    def usd(self) -> float | None:
        """What the calls cost the first time; None where a price is not known."""
        return money(call.usd for call in self.calls)


def sources_of(passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """Passages as JSON, in their order."""
    return [{"doc_id": p.span.doc_id, "start": p.span.start, "end": p.span.end, "text": p.text} for p in passages]


def check_question(question: Any) -> str | None:
    """What is wrong with a question that somebody sent; None where nothing is."""
    if not isinstance(question, str):
        return f"must be text, got {type(question).__name__}"
    if not question.strip():
        return "is empty"
    if len(question) > QUESTION_LIMIT:
        return f"has {len(question)} characters, and {QUESTION_LIMIT} are allowed"
    return None


class Answerer:
    """Answers questions with one export, from many threads.

    An LM that refuses every call is left alone for `RETRY_AFTER_S` seconds, in which questions are turned down at once;
    then the first question asks it anew, and the others wait for what comes of it.

    Args:
        exported: The export.
        runs: Holds the cache of responses.
    """

    def __init__(self, exported: ExportedProgram, runs: Path) -> None:
        self._cache = ServedCache(runs / "cache" / "responses.sqlite")
        self._exported = exported
        # Weakly: an LM that is away is opened anew every few seconds, and what was opened before is nobody's then.
        self._engines = WeakSet[MeteredEngine]()
        self._ask = self._opened()
        self._lock = threading.Lock()
        self._away_until: float | None = None
        self._searches_once = type(exported.program) is RAG
        self._answered = self._failed = 0

    @property
    def lm_state(self) -> str:
        """`away`, `answering`, or `not asked yet`."""
        if self._away_until is not None:
            return "away"
        return "answering" if self._answered else "not asked yet"

    @property
    def counts(self) -> dict[str, int]:
        """How many questions were answered, and how many were not."""
        return {"answered": self._answered, "failed": self._failed}

    def warm(self) -> None:
        """Load what the first question would wait for: the embedder, the terms, the reranker. The LM is not asked.

        Raises:
            RagwrightError: The embedder or the reranker fails.
        """
        search = getattr(self._exported.program, "search", None)
        if callable(search):
            search("warm up")

    async def aclose(self) -> None:
        """Close the connections of `answer_from_loop`; for the end of its event loop."""
        for engine in list(self._engines):
            await engine.aclose()

    def close(self) -> None:
        """Keep the answers that are not on disk yet; no more questions can be asked."""
        self._cache.close()

    def answer(self, question: str, found: Found | None = None) -> Answered:
        """Answer one question.

        Args:
            question: Checked.
            found: Told the passages that the LM will be shown, before it is asked, where a program searches once.

        Raises:
            AnswerError: There is no answer, and why.
        """
        ask = self._ask
        try:
            ask = self._present()
            with collect_calls() as calls, hearing(found if self._searches_once else None):
                answer, passages = ask(question)
            return self._answered_with(answer, passages, calls)
        except Exception as error:  # noqa: BLE001  # a person's program may raise anything
            refusal = self._refusal(ask, error)
        # Outside the handler: the provider's error is not chained to what whoever asked may see.
        raise refusal

    async def answer_from_loop(self, question: str, pool: Executor) -> Answered:
        """The same from an event loop: a thread of the pool is taken only where one is needed.

        Raises:
            AnswerError: There is no answer, and why.
        """
        ask, refusal = self._ask, None
        if isinstance(ask, DirectRAG) and self._away_until is None:
            try:
                with collect_calls() as calls:
                    found = await ask.from_loop(question, pool)
                if found is not None:
                    return self._answered_with(*found, calls)
            except Exception as error:  # noqa: BLE001  # as above
                refusal = self._refusal(ask, error)
        if refusal is not None:
            raise refusal
        return await asyncio.get_running_loop().run_in_executor(pool, self.answer, question)

    def _answered_with(self, answer: str, passages: tuple[Passage, ...], calls: list[CallRecord]) -> Answered:
        with self._lock:
            self._answered += 1
        return Answered(answer, passages, tuple(calls))

    def _refusal(self, ask: Ask, error: Exception) -> AnswerError:
        """What whoever asked is told of an error."""
        with self._lock:
            self._failed += 1
        if isinstance(error, AnswerError):
            return error
        # Said once, and not by every question that was under way.
        known = isinstance(error, EndpointError) and not self._leave(ask)
        return _away("") if known else explain(error)

    def _present(self) -> Ask:
        """What answers, with an LM that may be asked."""
        with self._lock:
            if self._away_until is None:
                return self._ask
            if time.monotonic() < self._away_until:
                raise _away("")
            self._ask = self._opened()
            self._away_until = None
            return self._ask

    def _leave(self, ask: Ask) -> bool:
        """Ask the LM no more for a while; whether that is news."""
        with self._lock:
            # A call that began before the LM was opened anew says nothing of the new one.
            if ask is not self._ask or self._away_until is not None:
                return False
            self._away_until = time.monotonic() + RETRY_AFTER_S
            return True

    def _opened(self) -> Ask:
        """The export with a new gate before its LM: the old one refuses for good."""
        exported = replace(self._exported, cache=self._cache).reopened()
        self._engines.add(exported.lm.engine)
        return open_ask(exported)


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says; that of an expected problem says it all."""
    said = str(error) if isinstance(error, RagwrightError) else f"{type(error).__name__}: {error}"
    return (said.strip() or type(error).__name__).splitlines()[0][:500]


def explain(error: Exception) -> AnswerError:
    """What went wrong in words for whoever asked, with the error's own first line as the detail."""
    from dspy.utils import exceptions as lm

    detail = one_line(error)
    if isinstance(error, EndpointError):
        return _away(detail)
    if isinstance(error, lm.LMRateLimitError):
        return AnswerError(
            "the language model takes no more calls right now; try again in a while.",
            429,
            "rate_limited",
            detail,
            RETRY_AFTER_S,
        )
    if isinstance(error, lm.LMTimeoutError):
        return AnswerError("the language model did not answer in time; try again.", 504, "lm_timeout", detail)
    if isinstance(error, lm.ContextWindowExceededError):
        return AnswerError(
            "the question and its passages are longer than the language model can read; ask a shorter question.",
            400,
            "context_length_exceeded",
            detail,
        )
    if isinstance(error, lm.AdapterParseError):
        return AnswerError(
            "the language model's reply could not be read as an answer; try again or ask otherwise.",
            502,
            "unreadable_answer",
            detail,
        )
    if isinstance(error, lm.LMError):
        return AnswerError("the language model failed on this question; try again.", 502, "lm_failed", detail)
    if isinstance(error, RagwrightError):
        return AnswerError("the documents cannot be searched right now; try again.", 503, "search_failed", detail)
    return AnswerError("the program failed on this question.", 500, "internal_error", detail)


def _away(detail: str) -> AnswerError:
    message = f"the language model does not answer at the moment; try again in {RETRY_AFTER_S} seconds."
    return AnswerError(message, 503, "lm_unavailable", detail, RETRY_AFTER_S)
