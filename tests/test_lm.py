from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError, LMServerError

from programs.environment import DEFAULTS, set_environment_defaults
from programs.errors import BudgetExhaustedError, EndpointError, RagwrightError
from programs.lm import LMSpec, describe_endpoint, open_lm, parse_lm
from programs.metered_lm import MeteredLM
from programs.metering import collect_calls
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from tests.openai_server import OpenAIServer

QA = "context: list[str], question -> answer"
INPUTS: dict[str, Any] = {"context": ["It was built in 1871."], "question": "When?"}
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL"))]:
        monkeypatch.delenv(name)


def spec(server: OpenAIServer, **settings: Any) -> LMSpec:
    return parse_lm({"model": "openai/small", "api_base": server.url, "retries": 0, "timeout_s": 10, **settings})


def ask(lm: MeteredLM, prompt_format: str = "compact", **inputs: Any) -> str:
    with dspy.context(lm=lm, adapter=FORMATS[prompt_format]()):
        return str(dspy.Predict(QA)(**{**INPUTS, **inputs}).answer)


# What a study file says


def test_a_name_alone_gets_the_defaults_of_its_kind() -> None:
    remote = parse_lm("openai/gpt-4o-mini")
    assert (remote.endpoint, remote.context_length, remote.threads) == ("chat", None, 8)
    assert not remote.is_local


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"model": "openai/x", "key": "k"}, "unknown key 'key'; known keys: model, api_base"),
        ({"temperature": 0}, "model is missing"),
        ({"model": "openai/x", "temperature": 3}, "temperature is 3"),
        ({"model": "openai/x", "temperature": "hot"}, "temperature is 'hot'"),
        ({"model": "openai/x", "threads": 0}, "threads is 0"),
        ({"model": "openai/x", "threads": True}, "threads is True"),
        ({"model": "openai/x", "api_base": "localhost:80"}, "api_base is 'localhost:80'"),
        ({"model": "openai/x", "api_key_env": "sk-123"}, "never the key itself"),
        ({"model": "openai/x", "endpoint": "raw"}, "chat or completion"),
        ("nowhere/x", "unknown model 'nowhere/x'"),
        ("", "model is ''"),
        ("local:/no/such/model.gguf", "there is no file /no/such/model.gguf"),
        ("local:hf:owner", "local:hf:<owner>/<repository>/<file>"),
        ({"model": "local", "api_base": "http://x"}, "runs in this process"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason(value: Any, said: str) -> None:
    with pytest.raises(RagwrightError, match=re.escape(said)):
        parse_lm(value)


def test_null_leaves_sampling_to_the_provider() -> None:
    parsed = parse_lm({"model": "openai/x", "temperature": None, "max_tokens": None})
    assert (parsed.temperature, parsed.max_tokens) == (None, None)


def test_identity_holds_what_decides_the_answers_and_nothing_else() -> None:
    base = {"model": "openai/x", "api_base": "http://user:pw@host:81/v1/?key=1"}
    identity = parse_lm(base).identity()
    assert identity["api_base"] == "http://host:81/v1"
    assert parse_lm({**base, "threads": 2, "retries": 1, "timeout_s": 1, "api_key_env": "K"}).identity() == identity
    for change in ({"temperature": 1.0}, {"max_tokens": 5}, {"endpoint": "completion"}, {"api_base": "http://host:82"}):
        assert parse_lm({**base, **change}).identity() != identity


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("openai/gpt-4o-mini", "https://api.openai.com/v1 (openai/gpt-4o-mini)"),
        ("anthropic/claude-x", "https://api.anthropic.com/v1 (anthropic/claude-x)"),
        ("ollama_chat/llama", "http://localhost:11434/v1 (ollama_chat/llama)"),
        ({"model": "openai/x", "api_base": "https://u:p@h.org/v1?k=1"}, "https://h.org/v1 (openai/x)"),
        ({"model": "openai/x", "api_base": "http://[::1]:8080/v1"}, "http://[::1]:8080/v1 (openai/x)"),
        ("local:hf:owner/name/model.gguf", "this process (model.gguf)"),
    ],
)
def test_the_endpoint_is_described_without_secrets(value: Any, said: str) -> None:
    assert describe_endpoint(parse_lm(value)) == said


def test_an_address_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", "https://gateway.org/v1")
    assert describe_endpoint(parse_lm("openai/x")) == "https://gateway.org/v1 (openai/x)"


# Keys


def test_a_missing_key_is_named_before_anything_is_sent() -> None:
    with pytest.raises(RagwrightError, match="set the environment variable OPENAI_API_KEY"):
        open_lm(parse_lm("openai/gpt-4o-mini"))
    with pytest.raises(RagwrightError, match="MY_KEY \\(api_key_env\\) is not set"):
        open_lm(parse_lm({"model": "openai/x", "api_base": "http://127.0.0.1:1", "api_key_env": "MY_KEY"}))


def test_the_usual_key_is_not_sent_to_an_address_that_the_study_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIServer() as server:
        ask(open_lm(spec(server)))
        ask(open_lm(spec(server, api_key_env="OPENAI_API_KEY")))
        assert [request.key for request in server.requests] == ["no-key", KEY]


def test_a_model_that_takes_no_temperature_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(RagwrightError, match="set temperature: null and max_tokens: null"):
        open_lm(parse_lm("openai/o3-mini"))
    open_lm(parse_lm({"model": "openai/o3-mini", "temperature": None, "max_tokens": None}))


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_a_wrong_key_is_one_request_and_shows_in_nothing(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    shown = io.StringIO()
    with OpenAIServer(key="another") as server:
        lm = open_lm(spec(server, api_key_env="MY_KEY", endpoint=endpoint, retries=3))

        def work(number: int) -> None:
            try:
                ask(lm, question=f"What is {number}?")
            except EndpointError as error:
                shown.write("".join(traceback.format_exception(error)))

        with collect_calls() as calls, ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(32)))
            assert not calls
        assert len(server.requests) == 1
    assert lm.engine.errors == 32
    assert "the key was refused; put a valid key into MY_KEY" in shown.getvalue()
    assert KEY not in shown.getvalue() + caplog.text + repr(lm) + repr(lm.engine) + repr(lm.history) + repr(vars(lm))


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_an_unknown_model_is_one_request(endpoint: str) -> None:
    with OpenAIServer(models=("large",)) as server:
        lm = open_lm(spec(server, endpoint=endpoint))
        for _ in range(3):
            with pytest.raises(EndpointError, match="the model is unknown there"):
                ask(lm)
        assert len(server.requests) == 1


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_a_server_that_is_not_there_is_explained(endpoint: str) -> None:
    with OpenAIServer() as server:
        gone = spec(server, endpoint=endpoint)
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1.*did not answer; check that the server runs"):
        ask(open_lm(gone))


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_a_server_that_is_too_slow_is_explained(endpoint: str) -> None:
    with OpenAIServer(delay_s=1.0) as server, pytest.raises(EndpointError, match="did not answer"):
        ask(open_lm(spec(server, endpoint=endpoint, timeout_s=0.1)))


def test_through_litellm_a_wrong_key_is_one_request_and_a_right_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(key=KEY) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY[::-1])
        lm = open_lm(parse_lm({"model": "openai/small", "retries": 1}))
        for _ in range(2):
            with pytest.raises(EndpointError, match="the key was refused") as caught:
                ask(lm)
            assert KEY[::-1] not in "".join(traceback.format_exception(caught.value))
        assert len(server.requests) == 1
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert ask(open_lm(parse_lm("openai/small"))) == "forty-two"


# Calls


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_half_a_surrogate_pair_is_replaced(endpoint: str, tmp_path: Path) -> None:
    with OpenAIServer(answer=lambda body: "a \ud83d b") as server:
        lm = open_lm(spec(server, endpoint=endpoint), cache=ResponseCache(tmp_path / "responses.sqlite"))
        assert ask(lm) == "a \ufffd b"
        assert ask(lm) == "a \ufffd b"


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_a_redirection_takes_the_key_nowhere(endpoint: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{elsewhere.url}/completions")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    with OpenAIServer() as elsewhere, HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        there = replace(spec(elsewhere, endpoint=endpoint), api_base=f"http://127.0.0.1:{server.server_port}/v1")
        lm = open_lm(there)
        with pytest.raises((LMError, EndpointError)):
            ask(lm)
        server.shutdown()
    assert elsewhere.requests == []


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
def test_a_call_is_counted_and_its_repetition_kept(endpoint: str, tmp_path: Path) -> None:
    with OpenAIServer(answer=lambda body: " in 1871") as server:
        lm = open_lm(spec(server, endpoint=endpoint), cache=ResponseCache(tmp_path / "r.sqlite"), role="judge")
        with collect_calls() as calls:
            assert ask(lm) == ask(lm) == "in 1871"
        assert len(server.requests) == 1
        assert server.requests[0].path == ("/v1/completions" if endpoint == "completion" else "/v1/chat/completions")
    assert [(call.paid, call.completion_tokens, call.role) for call in calls] == [
        (True, 2, "judge"),
        (False, 2, "judge"),
    ]
    assert calls[0].prompt_tokens == calls[1].prompt_tokens > 5


def test_a_completion_endpoint_gets_the_text_as_it_is_with_a_stop() -> None:
    with OpenAIServer(answer=lambda body: " in 1871") as server:
        lm = open_lm(spec(server, endpoint="completion"))
        ask(lm)
        [request] = server.requests
    assert request.body["prompt"].endswith("Context: It was built in 1871.\nQuestion: When?\nAnswer:")
    assert request.body["stop"] == ["\n"]
    assert set(request.body) == {"model", "prompt", "stop", "temperature", "max_tokens"}
    assert request.body["model"] == "small"


def test_other_formats_of_a_completion_endpoint_are_chat() -> None:
    with OpenAIServer(answer=lambda body: "[[ ## answer ## ]]\nin 1871") as server:
        assert ask(open_lm(spec(server, endpoint="completion")), "chat") == "in 1871"
        assert server.requests[0].path == "/v1/chat/completions"


def test_transient_errors_are_retried_and_then_belong_to_their_call() -> None:
    with OpenAIServer() as server:
        lm = open_lm(spec(server, retries=1))
        server.fail(500)
        with collect_calls() as calls:
            assert ask(lm) == "forty-two"
        assert (len(server.requests), len(calls)) == (2, 1)
        server.fail(500, times=2)
        with pytest.raises(LMServerError):
            ask(lm)
        assert ask(lm) == "forty-two"
    assert lm.engine.errors == 1


def test_the_server_is_used_by_many_threads_at_once() -> None:
    with OpenAIServer(delay_s=0.05) as server:
        lm = open_lm(spec(server))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: ask(lm, question=str(number)), range(17)))
        assert server.most_at_once > 3


def test_the_budget_reaches_through_dspy_and_any_adapter() -> None:
    def admit() -> None:
        raise BudgetExhaustedError("the budget is used up")

    with OpenAIServer() as server:
        lm = open_lm(spec(server), admit=admit)
        for name in FORMATS:
            with pytest.raises(BudgetExhaustedError, match="used up"):
                ask(lm, name)
        assert not server.requests


def test_a_call_is_in_dspys_history_and_usage_once() -> None:
    seen: list[str] = []

    class Watch(dspy.utils.callback.BaseCallback):
        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            seen.append(type(instance).__name__)

    with OpenAIServer() as server:
        lm = open_lm(spec(server))
        before = len(dspy.clients.base_lm.GLOBAL_HISTORY)
        with dspy.context(callbacks=[Watch()]), dspy.track_usage() as usage:
            ask(lm)
    assert len(lm.history) == len(dspy.clients.base_lm.GLOBAL_HISTORY) - before == 1
    assert seen == ["MeteredLM"]
    assert len(usage.usage_data["openai/small"]) == 1


def test_copies_with_rollouts_and_several_candidates_are_not_answered_with_one(tmp_path: Path) -> None:
    answers = iter(range(100))
    with OpenAIServer(answer=lambda body: str(next(answers))) as server:
        lm = open_lm(spec(server), cache=ResponseCache(tmp_path / "r.sqlite"))
        for _ in range(2):
            rolled = [ask(lm.copy(rollout_id=number, temperature=1.0)) for number in (1, 2, 3)]
            assert rolled == ["0", "1", "2"]
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            for _ in range(2):
                found = dspy.Predict(QA, n=3, temperature=1.0)(**INPUTS).completions.answer
                assert found == ["3", "4", "5"]
        assert len(server.requests) == 6


def test_a_known_model_has_a_price_and_an_unknown_one_none() -> None:
    with OpenAIServer() as server:
        for model, known in (("openai/gpt-4o-mini", True), ("openai/small", False)):
            with collect_calls() as calls:
                ask(open_lm(spec(server, model=model)))
            assert (calls[0].usd is not None) is known
            assert calls[0].usd is None or 0 < calls[0].usd < 0.001


def test_a_program_keeps_its_engine_through_a_deepcopy() -> None:
    with OpenAIServer() as server:
        program = dspy.Predict(QA)
        program.lm = open_lm(spec(server))
        with dspy.context(adapter=FORMATS["compact"]()):
            program.deepcopy()(**INPUTS)
        assert program.deepcopy().lm.engine is program.lm.engine


# The environment


def test_defaults_are_set_and_choices_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    set_environment_defaults()
    assert {name: os.environ[name] for name in DEFAULTS} == {**DEFAULTS, "DO_NOT_TRACK": "0"}


def test_a_native_model_needs_no_litellm() -> None:
    code = "import sys; from programs.lm import *; parse_lm('openai/x'); sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
