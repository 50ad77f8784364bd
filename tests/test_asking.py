from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimize.exporting.exported import load_export
from optimize.serving.asking import chat
from optimize.serving.stages import LMStage, SearchStage, trace
from programs.config import PipelineConfig
from programs.errors import RagwrightError
from tests.answering_exports import CANARY, QUESTION, export_for, read_towers
from tests.conftest import Ragwright
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied

RERANKED = PipelineConfig(
    chunk_size=64, retriever="sparse", reranker="lexical", retrieve_k=9, top_k=2, prompt_format="chat"
).canonical()


@pytest.fixture(scope="module")
def runs(studied: Studied) -> Path:
    return studied.run.path.parent


@pytest.fixture
def export(studied: Studied, lm: OpenAIServer, tmp_path: Path) -> Callable[..., Path]:
    def make(config: PipelineConfig = RERANKED, program: str = "rag", **settings: Any) -> Path:
        spec = {"model": "openai/tiny", "api_base": lm.url, "retries": 0, **settings}
        return export_for(studied, tmp_path / "out", spec, config, program)

    return make


def test_a_trace_holds_what_the_search_really_does(export: Callable[..., Path], runs: Path) -> None:
    exported = load_export(export(), runs)
    traced = trace(exported, QUESTION)
    search, call = traced.stages
    assert isinstance(search, SearchStage) and isinstance(call, LMStage)
    assert [one.rank for one in search.retrieved] == list(range(1, 10))
    assert sorted(one.before or 0 for one in search.reranked) == list(range(1, 10))
    assert [one.fate for one in search.reranked] == ["kept"] * 2 + ["top_k"] * 7
    untraced = exported.program.search(QUESTION)
    assert traced.passages == untraced == search.passages
    assert [one.span for one in search.reranked[:2]] == [passage.span for passage in untraced]
    assert [one.score for one in search.reranked[:2]] == [passage.score for passage in untraced]


def test_a_cutoff_is_told_from_top_k(export: Callable[..., Path], runs: Path) -> None:
    traced = trace(load_export(export(replace(RERANKED, cutoff=0.9)), runs), QUESTION)
    [search] = [stage for stage in traced.stages if isinstance(stage, SearchStage)]
    fates = [one.fate for one in search.reranked]
    assert fates[0] == "kept" and fates[-1] == "cutoff"
    assert fates.count("kept") == len(traced.passages)


def test_a_trace_holds_what_the_lm_is_sent_and_says(export: Callable[..., Path], runs: Path, lm: OpenAIServer) -> None:
    exported = load_export(export(), runs)
    traced = trace(exported, QUESTION)
    call = traced.stages[-1]
    assert isinstance(call, LMStage) and call.record is not None
    [request] = lm.requests
    assert [dict(message) for message in call.messages] == request.body["messages"]
    assert call.outputs == (read_towers(request.body),)
    assert call.record.paid and call.record.prompt_tokens == len(request.prompt.split())
    again = trace(exported, QUESTION).stages[-1]
    assert isinstance(again, LMStage) and again.record is not None and not again.record.paid
    assert exported.ask(QUESTION)[0] == traced.answer == "1807"


def test_every_call_of_a_longer_program_is_there(export: Callable[..., Path], runs: Path) -> None:
    traced = trace(load_export(export(WINNER, program="multihop"), runs), QUESTION)
    assert [type(stage) for stage in traced.stages] == [SearchStage, LMStage, SearchStage, LMStage]


def test_a_failure_keeps_the_stages_before_it(export: Callable[..., Path], runs: Path, lm: OpenAIServer) -> None:
    exported = load_export(export(), runs)
    exported.ask(QUESTION)
    lm.fail(400, text="no such thing")
    traced = trace(exported, "When was the tower test 2 built?")
    assert traced.error is not None and "no such thing" in traced.error
    assert isinstance(traced.stages[0], SearchStage)
    last = traced.stages[-1]
    assert isinstance(last, LMStage) and last.error is not None


def test_ask_trace_shows_every_stage(export: Callable[..., Path], runs: Path, ragwright: Ragwright) -> None:
    folder = export()
    code, out, _ = ragwright("ask", folder, QUESTION, "--trace", "--runs", runs)
    assert code == 0
    for shown in (
        "9 retrieved, 2 kept, 2 passages",
        "test-7.md 0-",
        "The tower test 7 was built in 1807",
        "top_k",
        "--- system",
        "--- user",
        "[[ ## question ## ]]",
        "--- said",
        "[[ ## answer ## ]]",
        "tokens read",
        "answer  1807",
        " s in all",
    ):
        assert shown in out, shown
    code, out, _ = ragwright("ask", folder, QUESTION, "--trace", "--json", "--runs", runs)
    content = json.loads(out)
    assert (code, content["answer"], content["error"]) == (0, "1807", None)
    assert [stage["stage"] for stage in content["stages"]] == ["search", "lm"]
    assert content["stages"][0]["retrieved"][0]["span"]["doc_id"]


def test_ask_keeps_its_json(export: Callable[..., Path], runs: Path, ragwright: Ragwright) -> None:
    folder = export()
    code, out, _ = ragwright("ask", folder, QUESTION, "--json", "--runs", runs)
    content = json.loads(out)
    assert code == 0 and content["answer"] == "1807"
    assert set(content["sources"][0]) == {"doc_id", "start", "end", "text"}
    code, _, err = ragwright("ask", folder, "x" * 9_000, "--runs", runs)
    assert code == 1 and "8000 are allowed" in err


def test_neither_a_document_nor_a_model_steers_the_terminal(
    export: Callable[..., Path], runs: Path, ragwright: Ragwright, lm: OpenAIServer
) -> None:
    lm.answer = lambda body: "[[ ## answer ## ]]\n1804 \x1b[2J \ud83d\tend\n\n[[ ## completed ## ]]"
    folder = export()
    for question, *traced in (("When was the tower train 10 built?",), ("And the tower train 11?", "--trace")):
        code, out, _ = ragwright("ask", folder, question, *traced, "--runs", runs)
        assert code == 0 and "1804 \ufffd[2J \ufffd\tend" in out and "\x1b" not in out


def test_without_a_question_ask_chats(
    export: Callable[..., Path], runs: Path, ragwright: Ragwright, lm: OpenAIServer
) -> None:
    folder = export()
    lines = f"{QUESTION}\n\n{'x' * 9_000}\nWhen was the tower test 2 built?"
    code, out, err = ragwright("ask", folder, "--runs", runs, lines=lines)
    assert (code, err) == (0, "")
    assert out.index("1807") < out.index("8000 are allowed") < out.index("1802")
    assert "[1] test-7.md 0-" in out and "[1] test-2.md 0-" in out
    assert len(lm.requests) == 2
    # Each question stands on its own.
    assert "test 7 built?" not in lm.requests[1].prompt
    assert ragwright("ask", folder, "--json", "--runs", runs)[0] == 2


def test_a_chat_goes_on_after_a_failure_and_ends_with_a_dead_lm(
    export: Callable[..., Path], runs: Path, ragwright: Ragwright, lm: OpenAIServer
) -> None:
    folder = export()
    asked = [f"When was the tower test {n} built?" for n in (1, 2, 3)]
    assert ragwright("ask", folder, "--runs", runs, lines=asked[0])[0] == 0
    answers = iter([200, 400, 200])

    def sometimes(path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        status = next(answers)
        fine = OpenAIServer._respond(lm, path, body, key)
        return fine if status == 200 else (400, {"error": {"message": "no", "code": "no"}})

    lm._respond = sometimes  # type: ignore[method-assign]
    lines = "\n".join(["When was the tower train 1 built?", *asked[1:]])
    code, out, _ = ragwright("ask", folder, "--runs", runs, lines=lines)
    assert code == 0
    assert "1801" in out and "no answer: " in out and "1803" in out
    lm._respond = lambda path, body, key: (401, {"error": {"message": f"wrong {key}"}})  # type: ignore[method-assign]
    code, _, err = ragwright("ask", folder, "--runs", runs, lines="When was the tower train 9 built?\nx\n")
    assert code == 1 and "the key was refused" in err


def test_a_traced_chat_ends_with_a_dead_lm_too(
    export: Callable[..., Path], runs: Path, ragwright: Ragwright, lm: OpenAIServer
) -> None:
    folder = export()
    lm.key = "another"
    lines = "When was the tower train 5 built?\nWhen was the tower train 6 built?\n"
    code, out, err = ragwright("ask", folder, "--trace", "--runs", runs, lines=lines)
    assert code == 1 and "the key was refused" in err
    assert "9 retrieved" in out and "train 6" not in out


def test_questions_that_are_not_utf_8_are_one_line(
    export: Callable[..., Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = load_export(export(), runs)
    for errors in ("strict", "surrogateescape"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9?\n"), "utf-8", errors))
        with pytest.raises(RagwrightError, match="standard input: not UTF-8"):
            chat(exported, traced=False)


def test_no_trace_or_chat_holds_a_key(
    studied: Studied,
    runs: Path,
    tmp_path: Path,
    lm: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    ragwright: Ragwright,
) -> None:
    monkeypatch.setenv("TOWER_KEY", CANARY)
    lm.key = CANARY
    spec = {"model": "openai/tiny", "api_base": lm.url, "api_key_env": "TOWER_KEY", "retries": 0}
    folder = export_for(studied, tmp_path / "out", spec)
    seen = [ragwright("ask", folder, QUESTION, "--trace", *json_, "--runs", runs) for json_ in ((), ("--json",))]
    assert "1807" in seen[0][1]
    lm.key = "another"
    seen.append(ragwright("ask", folder, "When was the tower test 3 built?", "--trace", "--runs", runs))
    seen.append(ragwright("ask", folder, "--runs", runs, lines="When was the tower test 4 built?"))
    assert [code for code, _, _ in seen] == [0, 0, 1, 1]
    for _, out, err in seen:
        assert CANARY not in out + err


def test_predict_is_a_command(
    export: Callable[..., Path], runs: Path, ragwright: Ragwright, tmp_path: Path, lm: OpenAIServer
) -> None:
    folder, questions, out = export(WINNER), tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text(json.dumps({"question": QUESTION}) + "\n", encoding="utf-8")
    code, said, _ = ragwright("predict", folder, questions, "-o", out, "--runs", runs, "--json")
    summary = json.loads(said)
    assert code == 0 and summary["answered"] == 1 and summary["out"] == str(out)
    assert json.loads(out.read_text())["answer"] == "1807"
    code, said, _ = ragwright("predict", folder, questions, "-o", out, "--runs", runs)
    assert code == 0 and "1 of 1 answered (1 of them before), 0 LM calls" in said
    questions.write_text("{}\n", encoding="utf-8")
    code, _, err = ragwright("predict", folder, questions, "-o", out, "--runs", runs)
    assert code == 1 and f"{questions}:1" in err
