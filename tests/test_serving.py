from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

import optimize.serving.answering
import programs.gate
from optimize.serving.app import BATCH_LIMIT, BODY_LIMIT
from optimize.serving.server import Settings, open_service, serve
from programs.errors import RagwrightError
from tests.answering_exports import CANARY, QUESTION, export_for
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Client:
    """Speaks to a server on this machine."""

    port: int

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, sent, {"Content-Type": "application/json", **headers})

    def ask(self, question: Any) -> Reply:
        return self.post("/ask", {"question": question})

    def chat(self, question: Any, **more: Any) -> Reply:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": question}], **more})

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def runs(studied: Studied) -> Path:
    return studied.run.path.parent


Exporter = Callable[..., Path]


@pytest.fixture
def exported(studied: Studied, lm: OpenAIServer, tmp_path: Path) -> Exporter:
    """Exports the winner for the server `lm`, with other settings of the LM or the program where asked."""

    def make(prompt_format: str = "compact", program: str = "rag", **settings: Any) -> Path:
        spec = {"model": "openai/tiny", "api_base": lm.url, "retries": 0, "threads": 4, **settings}
        return export_for(studied, tmp_path / "out", spec, replace(WINNER, prompt_format=prompt_format), program)

    return make


@contextmanager
def serving(folder: Path, runs: Path, **settings: Any) -> Iterator[Client]:
    """The export's routes behind a real server in a thread of this process."""
    service = open_service(Settings(folder, runs, **settings))
    config = uvicorn.Config(service, port=0, log_config=None, access_log=False)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield Client(bound.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
            service.close()


def test_an_answer_has_its_sources(exported: Exporter, runs: Path, studied: Studied) -> None:
    with serving(exported(), runs) as client:
        reply = client.ask(QUESTION)
        assert reply.status == 200
        assert reply.json["answer"] == "1807"
        [source] = reply.json["sources"]
        document = studied.dataset.corpus.document("test-7.md")
        assert source == {
            "doc_id": "test-7.md",
            "start": 0,
            "end": source["end"],
            "text": document.text[: source["end"]],
        }


def test_answers_outlive_the_server(exported: Exporter, runs: Path, lm: OpenAIServer) -> None:
    folder, questions = exported(), [f"When was the tower test {n} built?" for n in range(12)]
    with serving(folder, runs) as client, ThreadPoolExecutor(8) as pool:
        first = [reply.json for reply in pool.map(client.ask, questions * 2)]
    # Equal questions at the same time are one call.
    assert len(lm.requests) == 12
    with serving(folder, runs) as client:
        assert [client.ask(question).json for question in questions * 2] == first
    assert len(lm.requests) == 12


def test_health_says_what_is_served(exported: Exporter, runs: Path) -> None:
    folder = exported()
    manifest = json.loads((folder / "manifest.json").read_text())
    with serving(folder, runs) as client:
        health = client.get("/health").json
        assert health["status"] == "ok"
        assert health["verdict"] == "better"
        assert health["study"]["name"] == "towers"
        assert health["fingerprints"]["index"] == manifest["index"]
        assert health["fingerprints"]["candidate"] == manifest["candidate"]
        assert health["lm_state"] == "not asked yet"
        client.ask(QUESTION)
        assert client.get("/health").json["lm_state"] == "answering"
        assert client.get("/health").json["questions"] == {"answered": 1, "failed": 0}


def test_a_batch_keeps_its_order(exported: Exporter, runs: Path, lm: OpenAIServer) -> None:
    lm.delay_s = 0.05
    with serving(exported(), runs) as client:
        questions = [f"When was the tower test {n} built?" for n in (7, 1, 9, 3, 0)]
        answers = client.post("/ask", {"questions": questions}).json["answers"]
        assert [answer["answer"] for answer in answers] == ["1807", "1801", "1809", "1803", "1800"]
        assert lm.most_at_once == 4
        assert client.post("/ask", {"questions": [QUESTION] * (BATCH_LIMIT + 1)}).status == 400
        assert client.post("/ask", {"questions": []}).status == 400
        bad = client.post("/ask", {"questions": [QUESTION, 7]})
        assert bad.status == 400 and "questions[1]" in bad.text


@pytest.mark.parametrize("prompt_format", ["compact", "chat"])
def test_openai_clients_get_answers(exported: Exporter, runs: Path, prompt_format: str) -> None:
    from openai import OpenAI

    with serving(exported(prompt_format), runs) as client:
        remote = OpenAI(base_url=f"http://127.0.0.1:{client.port}/v1", api_key="none", max_retries=0)
        [model] = remote.models.list().data
        assert model.id == "ragwright/towers"
        messages: Any = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ]
        whole = remote.chat.completions.create(model=model.id, messages=messages, temperature=0.7)
        assert whole.choices[0].message.content == "1807"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None and whole.usage.completion_tokens > 0
        [citation] = whole.choices[0].message.annotations or []
        assert citation.url_citation.url.startswith("test-7.md#char=0,")
        [source] = whole.sources  # type: ignore[attr-defined]
        assert source["doc_id"] == "test-7.md"
        options: Any = {"include_usage": True}
        stream = remote.chat.completions.create(model=model.id, messages=messages, stream=True, stream_options=options)
        chunks = list(stream)
        assert len({chunk.id for chunk in chunks}) == 1
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "1807"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage is not None and chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
        assert chunks[-2].sources[0]["doc_id"] == "test-7.md"  # type: ignore[attr-defined]


def test_a_stream_is_events_and_ends(exported: Exporter, runs: Path) -> None:
    with serving(exported(), runs) as client:
        reply = client.chat(QUESTION, stream=True)
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = reply.text.strip().split("\n\n")
        assert all(event.startswith("data: ") for event in events)
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[0][6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_a_stream_that_waits_begins_before_the_answer(
    exported: Exporter, runs: Path, lm: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimize.serving.app.PATIENCE_S", 0.05)
    monkeypatch.setattr("optimize.serving.app.SILENCE_S", 0.1)
    lm.delay_s = 0.5
    with serving(exported(), runs) as client:
        reply = client.chat(QUESTION, stream=True)
        assert ": the language model is at work" in reply.text
        # The sources are there before the answer is, and with it once more.
        first, last = (reply.text.index('"sources"'), reply.text.rindex('"sources"'))
        assert first < reply.text.index('"1807"') < last
        lm.fail(500, times=20)
        failed = client.chat("When was the tower test 8 built?", stream=True)
        assert failed.status == 200
        assert '"lm_failed"' in failed.text and failed.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"question": ""}, 400, "invalid_question"),
        ({"question": " \n"}, 400, "invalid_question"),
        ({"question": 7}, 400, "invalid_question"),
        ({"question": None}, 400, "invalid_question"),
        ({"question": "x" * 8_001}, 400, "question_too_long"),
        ({}, 400, "invalid_request"),
        ({"question": "x", "model": "y"}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
        (b"{", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'"' + b"x" * BODY_LIMIT + b'"', 413, "body_too_large"),
    ],
)
def test_bad_questions_are_4xx(exported: Exporter, runs: Path, body: Any, status: int, code: str) -> None:
    with serving(exported(), runs) as client:
        reply = client.post("/ask", body)
        assert (reply.status, reply.code) == (status, code)
        assert set(reply.json) == {"error"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"messages": []}, 400, "invalid_request"),
        ({"messages": ["x"]}, 400, "invalid_request"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid_request"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_question"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_request"),
        ({"messages": [{"role": "user", "content": "x"}], "model": "gpt-4o"}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 2}, 400, "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": "yes"}, 400, "invalid_request"),
    ],
)
def test_bad_chats_are_4xx(exported: Exporter, runs: Path, body: Any, status: int, code: str) -> None:
    with serving(exported(), runs) as client:
        reply = client.post("/v1/chat/completions", body)
        assert (reply.status, reply.code) == (status, code)


def test_what_is_no_address_or_no_json_is_said(exported: Exporter, runs: Path) -> None:
    with serving(exported(), runs) as client:
        assert client.get("/v1/embeddings").status == 404
        assert client.get("/ask").status == 405
        head = client.send("HEAD", "/health", None, {})
        assert (head.status, head.text) == (200, "")
        plain = client.post("/ask", {"question": "x"}, **{"Content-Type": "text/plain"})
        assert (plain.status, plain.code) == (415, "unsupported_media_type")
        other = client.post("/ask", {"question": QUESTION}, Host="evil.example")
        assert (other.status, other.code) == (421, "unknown_host")


def test_a_key_is_asked_for(exported: Exporter, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DOOR", CANARY)
    with serving(exported(), runs, key_env="MY_DOOR") as client:
        assert client.get("/health").status == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": CANARY}):
            reply = client.post("/ask", {"question": QUESTION}, **headers)
            assert (reply.status, reply.code) == (401, "invalid_api_key")
        assert client.post("/ask", {"question": QUESTION}, Authorization=f"Bearer {CANARY}").status == 200
    monkeypatch.delenv("MY_DOOR")
    with pytest.raises(RagwrightError, match="MY_DOOR is not set"):
        open_service(Settings(exported(), runs, key_env="MY_DOOR"))


def test_an_lm_that_is_gone_is_503_until_it_is_back(
    exported: Exporter, runs: Path, lm: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.gate, "PAUSE_S", 0.001)
    monkeypatch.setattr(optimize.serving.answering, "RETRY_AFTER_S", 1)
    with serving(exported(), runs) as client:
        assert client.ask(QUESTION).status == 200
        asked = len(lm.requests)
        lm.fail(503, times=10_000)
        with ThreadPoolExecutor(8) as pool:
            gone = list(pool.map(client.ask, [f"When was the tower test {n} built?" for n in range(6)] * 5))
        last = client.ask("When was the tower train 2 built?")
        assert (last.status, last.code, last.headers["retry-after"]) == (503, "lm_unavailable", "1")
        assert {reply.status for reply in gone} <= {502, 503}
        assert client.get("/health").json["lm_state"] == "away"
        # The dead server was not asked once for each question and each attempt.
        assert len(lm.requests) - asked < 60
        lm._failures.clear()
        time.sleep(1.1)
        back = client.ask("When was the tower train 2 built?")
        assert (back.status, back.json["answer"]) == (200, "1802")


def test_one_bad_call_is_502_and_a_rate_limit_429(exported: Exporter, runs: Path, lm: OpenAIServer) -> None:
    with serving(exported(), runs) as client:
        assert client.ask(QUESTION).status == 200
        lm.fail(500)
        assert client.ask("When was the tower test 1 built?").code == "lm_failed"
        lm.fail(429)
        limited = client.ask("When was the tower test 2 built?")
        assert (limited.status, limited.code) == (429, "rate_limited")
        assert client.ask("When was the tower test 1 built?").status == 200


def test_what_the_lm_cannot_read_or_write_is_told_apart(exported: Exporter, runs: Path, lm: OpenAIServer) -> None:
    with serving(exported("chat"), runs) as client:
        assert client.ask(QUESTION).status == 200
        lm.answer = lambda body: "the year was 1807, I think"
        unreadable = client.ask("When was the tower test 1 built?")
        assert (unreadable.status, unreadable.code) == (502, "unreadable_answer")
        too_long = {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}}
        lm._respond = lambda path, body, key: (400, too_long)  # type: ignore[method-assign]
        long = client.ask("When was the tower test 2 built?")
        assert (long.status, long.code) == (400, "context_length_exceeded")


def test_a_crowd_is_turned_down(
    exported: Exporter, runs: Path, lm: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimize.serving.app.WAITING_LIMIT", 2)
    lm.delay_s = 0.3
    with serving(exported(), runs, threads=2) as client, ThreadPoolExecutor(12) as pool:
        questions = [f"When was the tower train {n} built?" for n in range(12)]
        replies = list(pool.map(client.ask, questions))
    assert {reply.status for reply in replies} == {200, 503}
    turned_down = [reply for reply in replies if reply.status == 503]
    assert {reply.code for reply in turned_down} == {"overloaded"}
    assert {reply.headers["retry-after"] for reply in turned_down} == {"1"}
    assert lm.most_at_once == 2


def test_no_secret_is_answered_or_logged(
    studied: Studied,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    lm: OpenAIServer,
) -> None:
    monkeypatch.setenv("TOWER_KEY", CANARY)
    lm.key = "another"
    spec = {"model": "openai/tiny", "api_base": lm.url, "api_key_env": "TOWER_KEY", "retries": 0}
    folder = export_for(studied, tmp_path / "out", spec)
    said = []
    with serving(folder, runs) as client:
        # The LM's 401 repeats the key.
        refused = client.post("/ask?key=" + CANARY, {"question": QUESTION}, Authorization=f"Bearer {CANARY}")
        assert (refused.status, refused.code) == (503, "lm_unavailable")
        said += [refused.text, client.get("/health").text, client.chat(QUESTION, stream=True).text]
        said.append(client.get(f"/{CANARY}").text)
    assert "the key was refused" in caplog.text
    for text in (*said, *capfd.readouterr(), caplog.text):
        assert CANARY not in text and "Traceback" not in text and "another" not in text


def test_a_broken_program_tells_nothing_of_itself(exported: Exporter, runs: Path) -> None:
    with serving(exported(program="tests.answering_exports:fragile"), runs) as client:
        broken = client.ask("please fail")
        assert (broken.status, broken.code) == (500, "internal_error")
        assert "canary" not in broken.text and "somebody" not in broken.text
        assert client.ask(QUESTION).json["answer"] == "1807"


def test_another_corpus_is_not_served(exported: Exporter, runs: Path, tmp_path: Path) -> None:
    folder = exported()
    pipeline = yaml.safe_load((folder / "pipeline.yaml").read_text())
    copy = tmp_path / "corpus"
    copy.mkdir()
    for file in Path(pipeline["corpus"]["path"]).iterdir():
        (copy / file.name).write_text(file.read_text())
    (copy / "test-7.md").write_text("The tower test 7 was built in 1907.")
    pipeline["corpus"]["path"] = str(copy)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    with pytest.raises(RagwrightError, match=r"corpus has changed .*ragwright evaluate"):
        open_service(Settings(folder, runs))


def test_another_index_is_not_served(exported: Exporter, runs: Path) -> None:
    folder = exported()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "index": "0123456789ab"}))
    with pytest.raises(RagwrightError, match="index"):
        open_service(Settings(folder, runs))


def test_a_taken_port_is_one_line(exported: Exporter, runs: Path) -> None:
    folder = exported()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RagwrightError, match="--port 0"):
            serve(Settings(folder, runs, port=taken.getsockname()[1]))
    with pytest.raises(RagwrightError, match="--host"):
        serve(Settings(folder, runs, host="no.such.host.invalid"))


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block, nor do those that it started."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_and_ends_gently(exported: Exporter, runs: Path, lm: OpenAIServer, workers: int) -> None:
    lm.delay_s = 1.0
    code = "from optimize.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(exported()), "--runs", str(runs), "--port", "0"]
    command += ["--workers", str(workers)] if workers > 1 else []
    with running(command) as process:
        assert process.stdout is not None and process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        client = Client(int(re.findall(r"http://127\.0\.0\.1:(\d+)/health", said)[0]))
        assert "verdict: better" in said
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(client.ask, QUESTION)
            while not lm._open and not waiting.done():
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGTERM)
            assert waiting.result().json["answer"] == "1807"
        assert process.wait(timeout=30) == 0
        error = process.stderr.read()
        assert "ended." in error and "Traceback" not in error
    with pytest.raises(ConnectionError):
        client.get("/health")


def test_what_takes_too_long_ends_with_the_server(
    exported: Exporter, runs: Path, lm: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    lm.delay_s = 2.0
    service = open_service(Settings(exported(), runs))
    config = uvicorn.Config(service, log_config=None, lifespan="off", timeout_graceful_shutdown=0)
    with socket.socket() as bound, ThreadPoolExecutor() as pool:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        while not server.started:
            time.sleep(0.005)
        waiting = pool.submit(Client(bound.getsockname()[1]).ask, QUESTION)
        while not lm._open:
            time.sleep(0.01)
        server.should_exit = True
        thread.join()
        reply = waiting.result()
    assert (reply.status, reply.code) == (503, "ending")
    assert "Traceback" not in caplog.text
    service.close()


def test_an_open_address_is_warned_of(
    exported: Exporter, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimize.serving.server._Server.run", lambda self, sockets: None)
    serve(Settings(exported(), runs, host="0.0.0.0", port=0))
    assert "warning: 0.0.0.0 is open to other machines" in capsys.readouterr().err
    serve(Settings(exported(), runs, port=0))
    assert "warning" not in capsys.readouterr().err


def test_who_leaves_a_stream_leaves_no_trace(
    exported: Exporter, runs: Path, lm: OpenAIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("optimize.serving.app.PATIENCE_S", 0.01)
    lm.delay_s = 0.3
    with serving(exported(), runs) as client:
        lm.fail(500)
        body = json.dumps({"messages": [{"role": "user", "content": QUESTION}], "stream": True})
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        assert connection.getresponse().readline().startswith(b"data: ")
        connection.close()
        time.sleep(0.6)
        assert client.ask(QUESTION).json["answer"] == "1807"
    assert "never retrieved" not in caplog.text and "Traceback" not in caplog.text
