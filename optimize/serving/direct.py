"""The plainest program asked directly: the same request as through DSPy, in half the time.

Around each call DSPy looks after histories, callbacks, traces and capabilities, which nobody asks for in a server: more
than half of what a question takes. Prompts, answers and calls are still those of its adapters and of the LM's engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy.lm15 import Message, Request, Response, TextPart, request_from_openai_chat

from optimize.serving.search import BatchedSearch
from programs.rag import RAG
from programs.types import Passage

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram

Ask = Callable[[str], tuple[str, tuple[Passage, ...]]]

FORMATS = frozenset({"compact", "chat", "xml"})
"""Prompt formats whose prompts end with one message that has the inputs, and whose calls need no planning: `json` asks
first what the LM can be held to."""


def open_ask(exported: ExportedProgram) -> Ask:
    """What answers the export's questions, as `ExportedProgram.ask` does: directly where its program is that plain."""
    program = exported.program
    plain = type(program) is RAG and exported.config.prompt_format in FORMATS
    if plain and program.generate.lm is None and not program.generate.config:
        return DirectRAG(exported)
    return exported.ask


class DirectRAG:
    """Answers with the export of a `RAG`.

    Args:
        exported: With one predictor, and a prompt format of `FORMATS`.
    """

    def __init__(self, exported: ExportedProgram) -> None:
        program, self._adapter, self._lm = exported.program, exported.adapter, exported.lm
        self._search, self._predictor = program.search, program.generate
        settings: dict[str, Any] = {}
        # DSPy's own steps, once instead of for every question; where the prompt is raw text, that is one of them.
        self._signature = self._adapter._call_preprocess(self._lm, settings, self._predictor.signature, {})
        body = {"model": self._lm.model, "messages": self._messages([], ""), **self._lm.kwargs, **settings}
        self._request = request_from_openai_chat({name: item for name, item in body.items() if item is not None})

    def __call__(self, question: str) -> tuple[str, tuple[Passage, ...]]:
        """Answer a question; the passages are those that the LM was shown, best first.

        Raises:
            RagwrightError: The LM refuses the call.
            dspy.utils.exceptions.LMError: This call failed.
            dspy.utils.exceptions.AdapterParseError: The answer cannot be read.
        """
        passages = tuple(self._search(question))
        return self._read(self._lm.engine.complete(self._asking(passages, question))), passages

    async def from_loop(self, question: str, pool: Executor) -> tuple[str, tuple[Passage, ...]] | None:
        """Answer a question from an event loop, with no thread that waits for the LM; None: it takes one.

        Args:
            question: As asked.
            pool: For searches that compute for longer than a thread takes to be woken.

        Raises:
            RagwrightError: The search fails.
            dspy.utils.exceptions.AdapterParseError: The answer cannot be read.
        """
        if not isinstance(self._search, BatchedSearch):
            return None
        if self._search.is_light:
            passages = self._search.search(question)
        else:
            passages = await asyncio.get_running_loop().run_in_executor(pool, self._search, question)
        response = await self._lm.engine.acomplete(self._asking(passages, question))
        return None if response is None else (self._read(response), passages)

    def _read(self, response: Response) -> str:
        text = "".join(part.text for part in response.message.parts if isinstance(part, TextPart))
        [fields] = self._adapter._call_postprocess(self._signature, self._signature, [text], self._lm, {})
        return str(fields["answer"] or "")

    def _asking(self, passages: tuple[Passage, ...], question: str) -> Request:
        last = self._messages([passage.text for passage in passages], question)[-1]
        asked = Message(role="user", parts=(TextPart(last["content"]),))
        return replace(self._request, messages=(*self._request.messages[:-1], asked))

    def _messages(self, context: list[str], question: str) -> list[dict[str, Any]]:
        inputs = {"context": context, "question": question}
        return self._adapter.format(self._signature, self._predictor.demos, inputs)
