"""The HTTP side of an export: addresses, limits, and errors that say what to do and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from optimize.serving import openai
from optimize.serving.access import Access
from optimize.serving.answering import QUESTION_LIMIT, Answered, Answerer, AnswerError, Found, check_question
from optimize.serving.openai import bad_request
from programs.types import Passage

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram

BODY_LIMIT = 1_048_576
"""Largest body of a request, in bytes: a batch of the longest questions fits."""

BATCH_LIMIT = 64
"""Most questions in one request; `ragwright predict` takes as many as there are."""

WAITING_LIMIT = 1_000
"""Questions that may wait for a thread: more would wait until whoever asked has gone."""

PATIENCE_S = 1.0
"""For so long a streamed answer holds its first event back: what fails at once so fails with a status of its own."""

SILENCE_S = 10.0
"""Longest silence in a stream."""

log = logging.getLogger("ragwright.serve")
Handler = Callable[[Request], Awaitable[Response]]


def describe(exported: ExportedProgram) -> dict[str, Any]:
    """What is served: the study, its verdict, and what tells this program from any other."""
    manifest = exported.manifest
    names = ("dataset", "corpus", "index", "configuration", "candidate")
    return {
        "study": manifest.get("study"),
        "verdict": manifest.get("verdict"),
        "result": manifest.get("result"),
        "created": manifest.get("created"),
        "metric": exported.metric,
        "lm": exported.spec.model,
        "fingerprints": {name: manifest.get(name) for name in names},
    }


def model_name(exported: ExportedProgram) -> str:
    """The name of the export among OpenAI's models."""
    study = exported.manifest.get("study") or {}
    return f"ragwright/{study.get('name', exported.folder.resolve().name)}"


class Service:
    """The ASGI application: routes and their work. One for each process.

    Args:
        answerer: Answers; its index is open.
        about: What `/health` says of the export.
        model: Its name among OpenAI's models.
        threads: Questions at the same time.
        access: Who may ask.
    """

    def __init__(self, answerer: Answerer, about: Mapping[str, Any], model: str, threads: int, access: Access) -> None:
        self.about, self.model = dict(about), model
        self._answerer, self._access = answerer, access
        self._threads, self._open, self._begun = threads, 0, int(time.time())
        self._pool, self._turns = ThreadPoolExecutor(threads, "answer"), asyncio.Semaphore(threads)
        self._routes: dict[str, tuple[str, Handler]] = {
            "/health": ("GET", self.health),
            "/ask": ("POST", self.ask),
            "/v1/models": ("GET", self.models),
            "/v1/chat/completions": ("POST", self.chat),
        }

    @property
    def busy(self) -> int:
        """Questions that are being answered or wait for it."""
        return self._open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: this is the ASGI application, and every error is one line of JSON and one of the log."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        assert scope["type"] == "http", "nothing else is asked for"
        request = Request(scope, receive)
        try:
            response = await self._route(scope["method"], scope["path"])(request)
        except AnswerError as error:
            response = _error(error)
        except asyncio.CancelledError:
            # The server ends, and this question has had its time.
            response = _error(AnswerError("the server is ending; ask again.", 503, "ending", "", 1))
        except Exception as error:  # noqa: BLE001  # no trace may reach whoever asked
            what = AnswerError("the server failed on this request.", 500, "internal_error", type(error).__name__)
            response = _error(what)
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """What the server does at its beginning and at its end."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._answerer.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def _route(self, method: str, path: str) -> Handler:
        """What answers at an address.

        Raises:
            AnswerError: Nothing does.
        """
        found = self._routes.get(path)
        if found is None:
            known = ", ".join(f"{method} {path}" for path, (method, _) in self._routes.items())
            raise bad_request(f"there is nothing at this address; this server knows {known}.", "not_found", 404)
        wanted, handler = found
        if method != wanted and (method, wanted) != ("HEAD", "GET"):
            raise bad_request(f"{path} takes {wanted} only.", "method_not_allowed", 405)
        return handler

    def close(self) -> None:
        """Take no more questions; those that nobody has begun are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not self._open:
            self._answerer.close()

    async def health(self, request: Request) -> Response:
        """The server takes questions; whether its LM answers is said beside. The counts are those of one process."""
        state = {"status": "ok", "model": self.model, **self.about, "lm_state": self._answerer.lm_state}
        return JSONResponse({**state, "process": os.getpid(), "questions": self._answerer.counts})

    async def models(self, request: Request) -> Response:
        """OpenAI's list of models."""
        self._access.check(request)
        return JSONResponse(openai.models(self.model, self._begun))

    async def ask(self, request: Request) -> Response:
        """One question, or several under `questions`."""
        self._access.check(request)
        body = await _body(request)
        unknown = sorted(set(body) - {"question", "questions"})
        if unknown or len(body) != 1:
            raise bad_request('send {"question": "..."} or {"questions": ["...", ...]}.')
        if "question" in body:
            return JSONResponse(_plain(await self._answer(body["question"], "question")))
        return JSONResponse({"answers": await self._batch(body["questions"])})

    async def chat(self, request: Request) -> Response:
        """OpenAI's chat completion."""
        self._access.check(request)
        question, stream, include_usage = openai.read_chat(await _body(request), self.model)
        loop, found = asyncio.get_running_loop(), asyncio.Queue[tuple[Passage, ...]]()

        def tell(passages: tuple[Passage, ...]) -> None:
            loop.call_soon_threadsafe(found.put_nowait, passages)

        work = asyncio.ensure_future(self._answer(question, "the last user message", tell if stream else None))
        if not stream:
            return JSONResponse(openai.completion(self.model, await work))
        done, _ = await asyncio.wait({work}, timeout=PATIENCE_S)
        if done:
            work.result()
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        events = self._events(work, found, openai.Stream(self.model, include_usage))
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(
        self, work: asyncio.Future[Answered], found: asyncio.Queue[tuple[Passage, ...]], stream: openai.Stream
    ) -> AsyncIterator[bytes]:
        yield stream.begin()
        # Whoever asked may go before the answer comes: it is then nobody's, and nobody's error.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        searching = asyncio.ensure_future(found.get())
        try:
            while not work.done():
                either: list[asyncio.Future[Any]] = [work, searching]
                await asyncio.wait(either, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    break
                if searching.done():
                    yield stream.found(searching.result())
                    searching = asyncio.ensure_future(found.get())
                else:
                    yield stream.wait()
        finally:
            searching.cancel()
        try:
            answered = work.result()
        except AnswerError as error:
            for event in stream.fail(error):
                yield event
            return
        for event in stream.end(answered):
            yield event

    async def _batch(self, questions: Any) -> list[dict[str, Any]]:
        """The answers in order; one that fails has an error in its place."""
        if not isinstance(questions, list) or not 1 <= len(questions) <= BATCH_LIMIT:
            raise bad_request(f"questions: must be a list of 1 to {BATCH_LIMIT}; for more, `ragwright predict`.")
        for number, question in enumerate(questions):
            _check(question, f"questions[{number}]")
        found = await asyncio.gather(*(self._answer(question, "") for question in questions), return_exceptions=True)
        answers = []
        for one in found:
            if isinstance(one, BaseException):
                if not isinstance(one, AnswerError):
                    raise one
                answers.append(openai.error_body(one))
            else:
                answers.append(_plain(one))
        return answers

    async def _answer(self, question: Any, place: str, found: Found | None = None) -> Answered:
        _check(question, place)
        if self._open >= self._threads + WAITING_LIMIT:
            raise AnswerError("too many questions are waiting; try again soon.", 503, "overloaded", "", 1)
        self._open += 1
        try:
            async with self._turns:
                if found is None:
                    return await self._answerer.answer_from_loop(question, self._pool)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, self._answerer.answer, question, found)
        finally:
            self._open -= 1


def _plain(answered: Answered) -> dict[str, Any]:
    return {"answer": answered.answer, "sources": answered.sources}


def _check(question: Any, place: str) -> None:
    problem = check_question(question)
    if problem is not None:
        too_long = isinstance(question, str) and len(question) > QUESTION_LIMIT
        raise bad_request(f"{place}: {problem}.", "question_too_long" if too_long else "invalid_question")


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        AnswerError: It is too large, of another kind, or no JSON object.
    """
    # A page in a browser may send anything else to this address without asking first.
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise bad_request("send JSON, with Content-Type: application/json.", "unsupported_media_type", 415)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > BODY_LIMIT:
            raise bad_request(f"the body is larger than {BODY_LIMIT} bytes.", "body_too_large", 413)
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise bad_request("the body is no JSON.", "invalid_json") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object.")
    return body


def _error(error: AnswerError) -> Response:
    if error.detail:
        log.warning("%s %s: %s", error.status, error.code, error.detail)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(openai.error_body(error), error.status, headers)
