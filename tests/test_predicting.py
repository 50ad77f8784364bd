from __future__ import annotations

import json
import linecache
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import programs.gate
from optimize.exporting.exported import load_export
from optimize.runs.progress import Silence
from optimize.serving.predicting import Predicted, predict
from optimize.serving.predicting_questions import read_questions
from programs.errors import EndpointError, ProblemsError, RagwrightError
from tests.answering_exports import export_for, read_towers
from tests.openai_server import OpenAIServer
from tests.outcomes import Studied


@pytest.fixture(scope="module")
def runs(studied: Studied) -> Path:
    return studied.run.path.parent


@pytest.fixture
def export(studied: Studied, tmp_path: Path) -> Callable[..., Path]:
    def make(server: OpenAIServer, program: str = "rag", **settings: Any) -> Path:
        spec = {"model": "openai/tiny", "api_base": server.url, "retries": 0, "threads": 4, **settings}
        return export_for(studied, tmp_path / "export", spec, program=program)

    return make


def write_questions(file: Path, count: int = 36) -> Path:
    """One question a tower, with an id on every second line."""
    lines = []
    for number in range(count):
        split = ("train", "validation", "test")[number // 12 % 3]
        line: dict[str, Any] = {"question": f"When was the tower {split} {number % 12} built?", "answers": ["?"]}
        lines.append(json.dumps(line | ({"id": f"q-{number}"} if number % 2 else {})))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def run(folder: Path, runs: Path, questions: Path, out: Path, threads: int = 4) -> Predicted:
    return predict(load_export(folder, runs), questions, out, threads, Silence())


def test_rows_are_in_order_and_have_sources(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = write_questions(tmp_path / "questions.jsonl"), tmp_path / "out.jsonl"

    def slow_start(body: dict[str, Any]) -> str:
        # The first answers come last.
        time.sleep(0.1 if "train" in body["messages"][-1]["content"][-60:] else 0.0)
        return read_towers(body)

    with OpenAIServer(answer=slow_start) as server:
        done = run(export(server), runs, questions, out, threads=8)
        assert len(server.requests) == 36
        assert 1 < server.most_at_once <= 8
    rows = rows_of(out)
    assert [row["line"] for row in rows] == list(range(1, 37))
    assert [row["id"] for row in rows[:4]] == ["1", "q-1", "3", "q-3"]
    assert [row["answer"] for row in rows] == [str(1800 + n % 12) for n in range(36)]
    assert rows[26]["sources"][0]["doc_id"] == "test-2.md"
    assert {row["error"] for row in rows} == {None}
    assert (done.questions, done.answered, done.failed, done.before) == (36, 36, 0, 0)
    assert (done.calls, done.paid_calls) == (36, 36)
    assert sorted(file.name for file in tmp_path.glob("out*")) == ["out.jsonl"]


def test_a_second_start_asks_nothing(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = write_questions(tmp_path / "questions.jsonl", 12), tmp_path / "out.jsonl"
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server)
        run(folder, runs, questions, out)
        before, count = out.read_bytes(), len(server.requests)
        again = run(folder, runs, questions, out)
        assert (again.before, again.calls, len(server.requests)) == (12, 0, count)
        assert out.read_bytes() == before


def test_more_questions_go_on(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = write_questions(tmp_path / "questions.jsonl", 6), tmp_path / "out.jsonl"
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server)
        run(folder, runs, questions, out)
        write_questions(questions, 14)
        grown = run(folder, runs, questions, out)
    assert (grown.before, grown.questions, grown.paid_calls) == (6, 14, 8)
    assert [row["line"] for row in rows_of(out)] == list(range(1, 15))


def write_lines(file: Path, *lines: dict[str, Any], end: str = "\n") -> Path:
    file.write_bytes("".join(json.dumps(line) + end for line in lines).encode())
    return file


def test_lines_may_be_moved_added_and_removed(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    """An answer belongs to its question, not to its line: what was paid for is kept."""
    out = tmp_path / "out.jsonl"
    first, second, third = ({"question": f"When was the tower test {n} built?"} for n in (1, 2, 3))
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server)
        run(folder, runs, write_lines(tmp_path / "questions.jsonl", first, second), out)
        # Where the cache of responses is gone, too.
        (runs / "cache" / "responses.sqlite").unlink()
        lines = ({"question": third["question"], "id": "new"}, second, {**second, "id": "again"})
        done = run(folder, runs, write_lines(tmp_path / "questions.jsonl", *lines), out)
        assert (done.before, done.paid_calls, len(server.requests)) == (2, 1, 3)
    rows = [(row["line"], row["id"], row["answer"]) for row in rows_of(out)]
    assert rows == [(1, "new", "1803"), (2, "2", "1802"), (3, "again", "1802")]


def test_answers_to_other_questions_are_not_overwritten(
    export: Callable[..., Path], runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server)
        run(folder, runs, write_questions(tmp_path / "mine.jsonl", 3), out)
        before = out.read_bytes()
        others = write_lines(tmp_path / "others.jsonl", {"question": "When was the tower test 9 built?"})
        with pytest.raises(RagwrightError, match="answers to other questions only; name another file"):
            run(folder, runs, others, out)
    assert out.read_bytes() == before


def test_another_version_of_a_persons_own_program_is_another_program(
    export: Callable[..., Path], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    own = tmp_path / "changing_program.py"
    own.write_text("from programs.rag import RAG\n\n\ndef build(search):\n    return RAG(search)\n")
    questions, out = write_questions(tmp_path / "questions.jsonl", 2), tmp_path / "out.jsonl"
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server, "changing_program:build")
        run(folder, runs, questions, out)
        own.write_text(own.read_text() + "\n# and more\n")
        linecache.checkcache()
        with pytest.raises(RagwrightError, match="another program"):
            run(folder, runs, questions, out)


def test_files_from_windows_are_read(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = tmp_path / "questions.jsonl", tmp_path / "out.jsonl"
    write_lines(questions, {"question": "When was the tower test 1 built?", "id": 7}, end="\r\n\r\n")
    questions.write_bytes(b"\xef\xbb\xbf" + questions.read_bytes())
    with OpenAIServer(answer=read_towers) as server:
        run(export(server), runs, questions, out)
    [row] = rows_of(out)
    assert (row["id"], row["answer"]) == ("7", "1801")
    assert b"\r" not in out.read_bytes()


def test_halves_of_characters_end_nothing(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    """A question that no file can hold is named; a reply, or an error, that no file can hold is escaped."""
    questions, out = tmp_path / "questions.jsonl", tmp_path / "out.jsonl"
    write_lines(questions, {"question": "fine"}, {"question": "\ud800 half"}, {"question": "x", "id": "\udfff"})
    with pytest.raises(ProblemsError) as caught:
        read_questions(questions)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "3"]
    assert "'\\ud800', half of a character" in str(caught.value)
    write_lines(questions, {"question": "When was the tower test 1 built?"})
    with OpenAIServer(answer=lambda body: "1801 \ud83d") as server:
        folder = export(server)
        run(folder, runs, questions, out)
        [row] = rows_of(out)
        assert row["answer"].startswith("1801 ")
        assert run(folder, runs, questions, out).before == 1


KILLED = """
import sys
from pathlib import Path
from optimize.exporting.exported import load_export
from optimize.serving.predicting import predict
from optimize.runs.progress import Silence
folder, runs, questions, out = map(Path, sys.argv[1:])
predict(load_export(folder, runs), questions, out, 4, Silence())
"""


def test_kill_9_loses_nothing_and_pays_nothing_twice(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = write_questions(tmp_path / "questions.jsonl"), tmp_path / "out.jsonl"
    threads, kills = 4, (5, 17, 26)
    with OpenAIServer(answer=read_towers, delay_s=0.05) as server:
        folder = export(server)
        command = [sys.executable, "-c", KILLED, *map(str, (folder, runs, questions, out))]
        for answered in kills:
            process = subprocess.Popen(command)
            try:
                while len(server.requests) < answered and process.poll() is None:
                    time.sleep(0.005)
                assert process.poll() is None, "ended before it was killed"
            finally:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            assert not out.exists()
        # The half of a row that a kill may leave.
        with (tmp_path / "out.jsonl.partial").open("a") as partial:
            partial.write('{"line": 36, "id": "q-35", "quest')
        time.sleep(0.1)
        kept = len(rows_of_whole(tmp_path / "out.jsonl.partial"))
        assert kept >= kills[-1] - len(kills) * threads
        done = run(folder, runs, questions, out)
        assert done.before == kept
        # Only what was under way when a process died was asked again.
        assert 36 <= len(server.requests) <= 36 + len(kills) * threads
    rows = rows_of(out)
    assert [row["line"] for row in rows] == list(range(1, 37))
    assert [row["answer"] for row in rows] == [str(1800 + n % 12) for n in range(36)]
    assert not (tmp_path / "out.jsonl.partial").exists()


def rows_of_whole(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def test_failures_are_rows_and_are_asked_again(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = write_questions(tmp_path / "questions.jsonl", 12), tmp_path / "out.jsonl"
    broken = {"When was the tower train 3 built?", "When was the tower train 8 built?"}

    class Partly(OpenAIServer):
        def _respond(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
            if any(question in body["messages"][-1]["content"] for question in broken):
                return 400, {"error": {"message": "no", "type": "invalid_request_error", "code": "no"}}
            return super()._respond(path, body, key)

    with Partly(answer=read_towers) as server:
        folder = export(server)
        first = run(folder, runs, questions, out)
        assert (first.answered, first.failed) == (10, 2)
        rows = rows_of(out)
        assert [row["line"] for row in rows] == list(range(1, 13))
        assert [row["line"] for row in rows if row["error"]] == [4, 9]
        assert rows[3]["answer"] is None and "\n" not in rows[3]["error"]
        broken.clear()
        asked = len(server.requests)
        second = run(folder, runs, questions, out)
        assert (second.answered, second.failed, second.before) == (12, 0, 10)
        assert len(server.requests) - asked == 2
    assert [row["answer"] for row in rows_of(out)] == [str(1800 + n) for n in range(12)]


def test_a_program_that_fails_costs_its_row_only(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = tmp_path / "questions.jsonl", tmp_path / "out.jsonl"
    texts = ["When was the tower test 1 built?", "please fail", "When was the tower test 2 built?"]
    questions.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    with OpenAIServer(answer=read_towers) as server:
        done = run(export(server, "tests.answering_exports:fragile"), runs, questions, out)
    assert (done.answered, done.failed) == (2, 1)
    assert [row["answer"] for row in rows_of(out)] == ["1801", None, "1802"]


def test_a_dead_lm_ends_it_and_keeps_what_was_answered(
    export: Callable[..., Path], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.gate, "PAUSE_S", 0.001)
    questions, out = write_questions(tmp_path / "questions.jsonl"), tmp_path / "out.jsonl"

    class Dying(OpenAIServer):
        alive = True

        def _respond(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
            if self.alive and len(self.requests) < 20:
                return super()._respond(path, body, key)
            return 503, {"error": {"message": "no server"}}

    with Dying(answer=read_towers) as server:
        folder = export(server)
        with pytest.raises(EndpointError, match="no longer answers"):
            run(folder, runs, questions, out)
        assert not out.exists()
        kept = rows_of(tmp_path / "out.jsonl.partial")
        assert len(kept) >= 16
    # What answers at another address may be another LM, and its answers are not mixed in.
    with OpenAIServer(answer=read_towers) as back, pytest.raises(RagwrightError, match="another program"):
        run(export(back), runs, questions, out)


def test_bad_lines_are_named_before_anything_is_asked(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        '{"question": "fine"}\n'
        "{\n"
        '\n["question"]\n'
        '{"frage": "x"}\n'
        '{"question": 7}\n'
        '{"question": "  "}\n'
        '{"question": "' + "x" * 9_000 + '"}\n'
        '{"question": "x", "id": [1]}\n'
        '{"question": "line\\u2028separator"}\n',
        encoding="utf-8",
    )
    with pytest.raises(ProblemsError) as caught:
        read_questions(questions)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "4", "5", "6", "7", "8", "9"]
    for line, word in zip(lines, ("not JSON", "object", "object", "text", "empty", "characters", "id"), strict=True):
        assert word in line


def test_many_bad_lines_are_not_all_listed(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("x\n" * 500)
    with pytest.raises(ProblemsError) as caught:
        read_questions(questions)
    assert len(str(caught.value).splitlines()) == 21
    assert "480 more" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
def test_files_without_questions_are_refused(tmp_path: Path, content: bytes) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_bytes(content)
    with pytest.raises(RagwrightError, match=r"questions\.jsonl"):
        read_questions(questions)
    with pytest.raises(RagwrightError, match=r"missing\.jsonl"):
        read_questions(tmp_path / "missing.jsonl")


def test_ten_thousand_lines_are_read_at_once(tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "questions.jsonl", 10_000)
    began = time.monotonic()
    assert len(read_questions(questions)) == 10_000
    assert time.monotonic() - began < 5


def test_files_of_others_are_not_overwritten(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    questions, out = write_questions(tmp_path / "questions.jsonl", 3), tmp_path / "out.jsonl"
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server)
        out.write_text('{"question": "mine"}\n')
        with pytest.raises(RagwrightError, match=r"out\.jsonl:1: is no row"):
            run(folder, runs, questions, out)
        assert out.read_text() == '{"question": "mine"}\n'
        with pytest.raises(RagwrightError, match="there is no folder"):
            run(folder, runs, questions, tmp_path / "no" / "out.jsonl")
        with pytest.raises(RagwrightError, match=r"questions\.jsonl:1: is no row"):
            run(folder, runs, questions, questions)
        with pytest.raises(RagwrightError, match="is a folder; name a file"):
            run(folder, runs, questions, tmp_path)
        assert not server.requests


def test_two_processes_do_not_write_one_file(export: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    questions, out = write_questions(tmp_path / "questions.jsonl", 3), tmp_path / "out.jsonl"
    with OpenAIServer(answer=read_towers) as server:
        folder = export(server)
        with FileLock(tmp_path / ".out.jsonl.lock"), pytest.raises(RagwrightError, match="another process"):
            run(folder, runs, questions, out)
