"""Which sample of a request is being drawn: what DSPy knows and does not tell an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

_current: ContextVar[tuple[Any, Iterator[int]]] = ContextVar("ragwright_rollout")


@contextmanager
def rollout(number: Any) -> Iterator[None]:
    """Tell samples of one request apart: by DSPy's `rollout_id`, and the candidates of one call with `n` above 1.

    The request itself says neither. Without them every sample would be answered from the cache with the first one.
    """
    token = _current.set((number, count()))
    try:
        yield
    finally:
        _current.reset(token)


def current_sample() -> tuple[Any, int]:
    """The rollout, and the number of the candidate within the call, counted on by this question."""
    number, candidates = _current.get((None, iter((0,))))
    return number, next(candidates)
