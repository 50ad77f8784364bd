"""Searches for questions that come at the same time, done together: a batch costs little more than one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from programs.extraction import clean
from programs.reranking import MODELS, RERANKERS
from programs.search import Search
from programs.types import Passage

_listener: ContextVar[Callable[[tuple[Passage, ...]], None] | None] = ContextVar("ragwright_found", default=None)


@contextmanager
def hearing(tell: Callable[[tuple[Passage, ...]], None] | None) -> Iterator[None]:
    """Be told what each `BatchedSearch` of this thread finds, when it is found, while the block lasts."""
    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)


MOST_TOGETHER = 64
"""Questions in one batch: those that come later wait no longer than for it."""


def _held() -> threading.Lock:
    """A lock to wait for: cheaper than an event, and every question has one."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Waiting:
    """One question and what becomes of it.

    Attributes:
        question: Cleaned.
        asleep: Held until it is answered, or its thread has to search.
        done: Whether it is answered.
        passages: What was found.
        error: Why nothing was.
    """

    question: str
    asleep: threading.Lock = field(default_factory=_held)
    done: bool = False
    passages: tuple[Passage, ...] = ()
    error: BaseException | None = None


class BatchedSearch:
    """A search that finds for each question what `Search` finds, whatever company it is asked in.

    One thread at a time searches, for all questions that have come meanwhile: alone, a question is searched for at
    once. Of one batch the texts are embedded together and the vectors searched together.

    Args:
        search: One whose reranker asks no LM and no server: those calls would follow each other in a batch.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self._lock, self._busy = threading.Lock(), False
        self._waiting: list[_Waiting] = []

    @property
    def is_light(self) -> bool:
        """Whether one search takes a fraction of a millisecond: words are counted, and no model computes."""
        return self.search.config.retriever == "sparse" and self.search.config.reranker in ("none", "lexical")

    def __call__(self, question: str) -> tuple[Passage, ...]:
        """As `Search`.

        Raises:
            RagwrightError: The embedder or the reranker fails.
        """
        own = _Waiting(clean(question))
        with self._lock:
            self._waiting.append(own)
            follows, self._busy = self._busy, True
        if follows:
            own.asleep.acquire()
        if not own.done:
            self._lead()
        if own.error is not None:
            raise own.error
        if (tell := _listener.get()) is not None:
            tell(own.passages)
        return own.passages

    def _lead(self) -> None:
        """Search for the oldest of those that wait, this thread's among them, and leave the next batch to another."""
        with self._lock:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        try:
            self._answer_all(batch)
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                following = self._waiting[:1]
            for one in (*batch, *following):
                one.asleep.release()

    def _answer_all(self, batch: Sequence[_Waiting]) -> None:
        """Answer a batch; an error stays with the question that it belongs to."""
        try:
            self._answer(batch)
        except Exception:  # noqa: BLE001  # one by one, each question has its own
            for one in batch:
                try:
                    self._answer([one])
                except Exception as error:  # noqa: BLE001  # raised where the question was asked
                    one.error = error
        finally:
            for one in batch:
                one.done = True

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        search, questions = self.search, [one.question for one in batch]
        retrieved = search.retriever.retrieve(questions, search.config.retrieve_k)
        depth = search.config.retrieve_k if search.config.cutoff else search.config.top_k
        for one, ranking in zip(batch, search.keep(search.reranker.rerank(questions, retrieved, depth)), strict=True):
            one.passages = search.expander.passages(ranking)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def batch_searches(program: Any) -> bool:
    """Let a program search in batches, where its search is one of ours under the name `search`; whether it does."""
    search = getattr(program, "search", None)
    if not isinstance(search, Search) or not _is_here(search.config.reranker):
        return False
    program.search = BatchedSearch(search)
    return True


def _is_here(reranker: str) -> bool:
    """Whether a reranker computes in this process."""
    return reranker != "llm" and (reranker in RERANKERS or reranker.partition(":")[0] in MODELS)
