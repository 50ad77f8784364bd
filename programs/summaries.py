"""Context prefixes that an LM writes: what the part of the document around a chunk is about."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

from programs.config import fingerprint
from programs.splitting import split
from programs.tokens import count_tokens
from programs.types import Chunk, Document

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec

WINDOW = 1024
"""Tokens of a document that one summary is about. All chunkings share the windows, so each is summarized once."""


class Summarizer:
    """Writes one sentence for each window of a document.

    Cf. Anthropic 2024, "Introducing Contextual Retrieval", who let the LM read the whole document for every chunk; a
    window for many chunks costs one call instead of one for each.

    Args:
        lm: Writes; its calls are cached, recorded and held to the budget like any other.
        adapter: The prompt format.
        identity: Tells LMs apart: what another one wrote is another index.
        threads: Calls in flight at the same time.
    """

    def __init__(self, lm: dspy.LM, adapter: dspy.Adapter, identity: str, threads: int) -> None:
        self.identity = identity
        self._lm, self._adapter, self._threads = lm, adapter, threads

    def prefixes(self, document: Document, chunks: Sequence[Chunk]) -> list[str]:
        """The text put before each chunk of one document when it is indexed: a line with the summary around it.

        Raises:
            RagwrightError: The LM refuses, or the budget is used up; what was written is cached.
        """
        windows = split(document, "recursive", WINDOW, 0.0, count_tokens)
        lines = self._write(document.title, windows)
        starts = [window.span.start for window in windows]
        middles = [(chunk.span.start + chunk.span.end) // 2 for chunk in chunks]
        return [lines[max(0, bisect_right(starts, middle) - 1)] for middle in middles]

    def _write(self, title: str, windows: Sequence[Chunk]) -> list[str]:
        import dspy

        from programs.signatures import Summary

        predictor = dspy.Predict(Summary)

        def write(window: Chunk) -> str:
            about = predictor(title=title, part=window.text).about
            line = " ".join((about or "").split())
            return f"{line}\n" if line else ""

        with dspy.context(lm=self._lm, adapter=self._adapter), ThreadPoolExecutor(max(1, self._threads)) as pool:
            futures = [pool.submit(copy_context().run, write, window) for window in windows]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()


def open_summarizer(lm: dspy.LM, spec: LMSpec) -> Summarizer:
    """The summarizer that works with a study's task LM; its prompts are short in any case."""
    from programs.prompt_format import CompactAdapter

    return Summarizer(lm, CompactAdapter(), summarizer_identity(spec), spec.threads)


def summarizer_identity(spec: LMSpec) -> str:
    """What tells the summaries of one LM from those of another."""
    return fingerprint([spec.identity(), WINDOW, "1"])
