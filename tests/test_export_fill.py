"""An export's files give exactly what the LM gets through the whole program, whatever the passages hold."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optimize.compiling.candidate import Candidate, Demo, PredictorPrompt, apply_candidate
from optimize.data.example import Example
from optimize.exporting import fill as export_fill
from optimize.exporting.export import _write_code, _write_prompts
from optimize.exporting.record import render_prompts
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.extraction import clean
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.types import Chunk, Passage, Span
from tests.openai_server import OpenAIServer

QUOTING = "Fill {{context}} and {{question}} yourself: {% raw %} {x} {{ }}"
"""Instructions and demos about templates: what looks like a placeholder there is none."""

DEMO = Example("d", "What does {{question}} mean?", ("a {placeholder}",))
TEXT = st.text(max_size=60).map(clean)
INPUTS = st.tuples(st.lists(TEXT, max_size=4), TEXT.filter(str.strip))
NASTY = (
    ["  a\n\n«b» \t", "{{question}} {context}", "", "漢字 \u2028 é 🗼 \u00a0", '"quoted" \\ <x>&amp;</x>'],
    "{{context}}?",
)


class Sent:
    """A program over an OpenAI-style server, with what it sends and what its export would send.

    Args:
        server: Hears the program.
        folder: Gets the export's files.
    """

    def __init__(self, server: OpenAIServer, folder: Path, prompt_format: str, endpoint: str, program: str) -> None:
        self.server, self.folder = server, folder
        self.passages: tuple[Passage, ...] = ()
        lm = {"model": "openai/tiny", "api_base": server.url, "endpoint": endpoint, "max_tokens": 17}
        spec = parse_lm(lm)
        self.lm, self.adapter = open_lm(spec), FORMATS[prompt_format]()
        self.program = build_program(program, lambda _: self.passages)
        demo = Demo("d", {"answer": "a {{question}}", "query": "q"})
        prompts = {name: PredictorPrompt(QUOTING, (demo,)) for name, _ in self.program.named_predictors()}
        self.passages = (_passage("Not {{context}}, but this.", 0),)
        apply_candidate(self.program, Candidate(prompts), {"d": DEMO})
        found = render_prompts(self.program, PipelineConfig(prompt_format=prompt_format), spec)
        manifest = {"prompts": _write_prompts(folder, found)}
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        _write_code(folder, PipelineConfig(prompt_format=prompt_format), spec)

    def bodies(self, context: list[str], question: str) -> list[dict[str, Any]]:
        """What the program sends for a question whose search finds `context`."""
        self.passages = tuple(_passage(text, number) for number, text in enumerate(context))
        self.server.requests.clear()
        with dspy.context(lm=self.lm, adapter=self.adapter):
            self.program(question=question)
        return [{k: v for k, v in request.body.items() if k != "model"} for request in self.server.requests]


def _passage(text: str, number: int) -> Passage:
    return Passage(Chunk(f"d#{number}", Span("d", number, number + 1), text), 1.0)


def _reply(body: dict[str, Any]) -> str:
    """An answer in whatever format it is asked for."""
    text = str(body)
    name = "query" if "`query`" in text or "## query ##" in text or "Query:" in text or "<query>" in text else "answer"
    if "JSON object" in text:
        return json.dumps({name: "forty-two"})
    if "XML tags" in text:
        return f"<{name}>\nforty-two\n</{name}>"
    return f"[[ ## {name} ## ]]\nforty-two\n\n[[ ## completed ## ]]" if "[[ ##" in text else "forty-two"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=_reply) as server:
        yield server


@pytest.fixture(scope="module")
def sent(server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Sent]:
    made: dict[tuple[str, str, str], Sent] = {}

    def make(prompt_format: str, endpoint: str = "chat", program: str = "rag") -> Sent:
        key = (prompt_format, endpoint, program)
        if key not in made:
            made[key] = Sent(server, tmp_path_factory.mktemp("filled"), *key)
        return made[key]

    return make


KINDS = [("compact", "completion"), ("compact", "chat"), ("chat", "chat"), ("json", "chat"), ("xml", "chat")]


@pytest.mark.parametrize(("prompt_format", "endpoint"), KINDS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(inputs=INPUTS)
@example(inputs=NASTY)
@example(inputs=([], "When?"))
@example(inputs=(["", " "], " When?\n"))
@example(inputs=(["one"], "When?"))
def test_the_files_say_what_is_sent(
    sent: Callable[..., Sent], prompt_format: str, endpoint: str, inputs: tuple[list[str], str]
) -> None:
    context, question = inputs
    one = sent(prompt_format, endpoint)
    [body] = one.bodies(context, question)
    assert export_fill.request(folder=one.folder, context=context, question=question) == body


@pytest.mark.parametrize("prompt_format", ["compact", "chat", "json", "xml"])
def test_every_predictor_of_a_program_is_filled(sent: Callable[..., Sent], prompt_format: str) -> None:
    context, question = NASTY
    one = sent(prompt_format, "chat", "multihop")
    first, second = one.bodies(context, question)
    assert export_fill.request("next_query", folder=one.folder, context=context, question=question) == first
    assert export_fill.request("generate", folder=one.folder, context=context, question=question) == second
    with pytest.raises(ValueError, match="name one of"):
        export_fill.request(folder=one.folder, context=context, question=question)


@pytest.mark.parametrize("prompt_format", ["compact", "chat", "json", "xml"])
@pytest.mark.parametrize(
    "reply",
    [
        "{answer}",
        "**Answer:** {answer}\nQuestion: more?",
        "[[ ## answer ## ]]\n{answer}\nsecond line\n\n[[ ## completed ## ]]",
        "[[ ## answer ## ]] {answer}",
        '{{"answer": "{answer}", "more": 1}}',
        'Here: {{"answer": 12}}',
        "<answer>\n{answer} &amp; more\n</answer>",
        "<answer>{answer} & more",
        "<answer>a <b>{answer}</b> &lt; c</answer>",
        "said <answer>{answer}</answer> <answer>again</answer>",
        "",
    ],
)
def test_replies_are_read_as_the_study_read_them(sent: Callable[..., Sent], prompt_format: str, reply: str) -> None:
    """Where the study's own reader finds an answer, the export's finds the same; else neither does."""
    one = sent(prompt_format)
    text = reply.format(answer="the 漢 tower  of 1889")
    signature = one.program.predictors()[0].signature
    try:
        wanted = {name: str(value) for name, value in one.adapter.parse(signature, text).items()}
    except dspy.utils.exceptions.AdapterParseError:
        with pytest.raises(ValueError):
            export_fill.read(text, folder=one.folder)
    else:
        assert export_fill.read(text, folder=one.folder) == wanted


def test_one_call_asks_and_reads(sent: Callable[..., Sent], server: OpenAIServer) -> None:
    for kind in KINDS:
        one = sent(*kind)
        server.requests.clear()
        found = export_fill.ask(server.url, "tiny", key="k", folder=one.folder, context=["a"], question="When?")
        assert found == {"answer": "forty-two"}
        [request] = server.requests
        assert (request.key, request.status, request.body["model"]) == ("k", 200, "tiny")


class Leading(http.server.HTTPServer):
    """Leads every request to another address."""

    def __init__(self, to: str) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(302)
                self.send_header("Location", f"{to}/chat/completions")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        super().__exit__(*args)


def test_a_servers_refusal_says_what_to_do(sent: Callable[..., Sent], tmp_path: Path) -> None:
    one = sent("chat")

    def asked(address: str, key: str | None = None) -> str:
        with pytest.raises(OSError) as caught:
            export_fill.ask(address, "tiny", key=key, folder=one.folder, context=["a"], question="When?")
        return str(caught.value)

    with OpenAIServer(key="right", models=("other",)) as other:
        assert "401 (is the key right?)" in asked(other.url, "sk-canary")
        assert "sk-canary" not in asked(other.url, "sk-canary")
        assert "404 (does the address go up to /v1" in asked(other.url, "right")
        assert "does not answer" in asked(other.url.replace("http://", "http://me:sk-canary@"))
        assert "sk-canary" not in asked(other.url.replace("http://", "http://me:sk-canary@"))
    with OpenAIServer() as elsewhere, Leading(elsewhere.url) as leading:
        assert "302 (it leads to another address" in asked(leading.url, "sk-canary")
        assert not elsewhere.requests
    assert "does not answer" in asked(other.url)
    assert "not a URL" in asked("127.0.0.1")


def checked(folder: Path, *arguments: str) -> tuple[int, str]:
    """`python fill.py` in an export's folder, without a package: its exit code and what it says."""
    command = [sys.executable, "-S", str(folder / "fill.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout


def test_the_check_says_how_it_is_called_and_what_is_wrong(sent: Callable[..., Sent], tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(sent("json").folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "examples": [], "examples_missing": "left out"}))
    assert checked(folder, "http://127.0.0.1:9/v1", "tiny") == (
        1,
        "manifest.json has no worked examples to ask: left out\n",
    )
    call = {"predictor": "generate", "inputs": {"context": ["a"], "question": "When?"}, "outputs": {"answer": "1889"}}
    examples = [{"question": "When?", "calls": [call]}]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "examples": examples}))
    code, said = checked(folder)
    assert code == 2 and said.startswith("usage: python fill.py ADDRESS MODEL")
    with OpenAIServer(answer=lambda body: '{"answer": "1889"}') as server:
        assert checked(folder, server.url, "tiny") == (0, "1 of 1 as recorded\n")
        server.answer = lambda body: "I do not know."
        code, said = checked(folder, server.url, "tiny")
        assert code == 1 and "it begins with 'I do not know.'" in said and "0 of 1 as recorded" in said
    code, said = checked(folder, server.url, "tiny")
    assert code == 1 and said.startswith("error: the server does not answer")


def test_predictors_of_odd_names_have_files_of_their_own(server: OpenAIServer) -> None:
    class Many(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = {"a/b": dspy.Predict("question -> answer"), "a b": dspy.Predict("question -> answer")}
            self.last = dspy.Predict("question -> answer")

    spec = parse_lm({"model": "openai/tiny", "api_base": server.url, "endpoint": "completion"})
    files = [prompt.file for prompt in render_prompts(Many(), PipelineConfig(prompt_format="compact"), spec)]
    assert len(set(files)) == 3 and files[2] == "prompt-last.txt"
    assert all(re.fullmatch(r"[\w.-]+", file) for file in files)


def test_a_prompt_that_lost_its_placeholder_is_named() -> None:
    with pytest.raises(ValueError, match=r"no {{question}}; take the file as it was exported"):
        export_fill.fill(["Question:"], {"question": "When?"})


def test_inputs_are_checked(sent: Callable[..., Sent]) -> None:
    with pytest.raises(ValueError, match=r"needs exactly \['context', 'question'\]"):
        export_fill.request(folder=sent("chat").folder, question="When?")
