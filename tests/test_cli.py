from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Ragwright
from tests.openai_server import OpenAIServer
from tests.villages import read_villages, write_study


def test_help_imports_nothing_heavy() -> None:
    heavy = ("dspy", "mlflow", "optuna", "chromadb", "datasets", "litellm", "numpy", "xllamacpp", "chonkie")
    code = f"import sys, optimize.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_usage_errors_exit_with_2(ragwright: Ragwright) -> None:
    assert ragwright("optimize")[0] == 2
    assert ragwright("no-such-command")[0] == 2


def test_optimize_ask_evaluate_export_report(villages: Path, ragwright: Ragwright, tmp_path: Path, runs: Path) -> None:
    with OpenAIServer(answer=read_villages) as server:
        study = write_study(tmp_path / "study.yaml", villages, server.url, trials=6)
        code, out, err = ragwright("optimize", study, "--runs", runs)
        assert code == 0, err
        assert "report" in out and "next" in out
        export = next(runs.glob("*/export"))
        code, out, _ = ragwright("ask", export, "Who is the smith of Farrow?", "--runs", runs, "--json")
        answer = json.loads(out)
        assert code == 0 and answer["answer"] == "Karl" and "smith of Farrow" in str(answer["sources"])
        code, out, _ = ragwright("evaluate", export, "--split", "test", "--limit", 10, "--runs", runs, "--json")
        score = json.loads(out)["score"]
        gate = ("--limit", 10, "--fail-under", 1, "--runs", runs)
        code, _, err = ragwright("evaluate", export, "--split", "test", *gate)
        assert (code, "below --fail-under" in err) == ((0, False) if score == 1 else (1, True))
    assert ragwright("report", "--runs", runs)[0] == 0
    assert ragwright("export", "villages", "--runs", runs, "--out", tmp_path / "taken")[0] == 0
    assert (tmp_path / "taken" / "program.json").is_file()


def test_the_second_trial_of_an_index_embeds_nothing(villages: Path, tmp_path: Path) -> None:
    from programs.config import PipelineConfig
    from programs.corpus import load_corpus
    from programs.search import open_search

    corpus = load_corpus(villages / "corpus")
    first = open_search(tmp_path, corpus, PipelineConfig(chunk_size=32, top_k=1).canonical())
    embedded = first.index.embedder.texts_embedded if first.index.embedder else 0
    second = open_search(tmp_path, corpus, PipelineConfig(chunk_size=32, top_k=3, retriever="hybrid").canonical())
    assert second.index.embedder is not None
    assert second.index.embedder.texts_embedded == embedded > 0


def test_check_names_every_mistake_with_its_line(villages: Path, ragwright: Ragwright, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: five\n"
        f"dataset: {villages}\n"
        "metric: token_f2\n"
        "space:\n"
        "  splitter: [recursiv]\n"
        "  chunk_size: [8]\n"
        "optimizers: [mipro9]\n"
        "budgt: {lm_calls: 600}\n",
        encoding="utf-8",
    )
    code, _, err = ragwright("check", study)
    assert code == 1 and "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 5, err
    for number, name in ((3, "token_f2"), (5, "recursiv"), (6, "8"), (7, "mipro9"), (8, "budgt")):
        assert any(f"study.yaml:{number}" in line and name in line for line in lines), (number, name, err)


def test_check_names_who_sees_the_documents(villages: Path, ragwright: Ragwright, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study.yaml", villages, "http://127.0.0.1:9/v1")
    code, out, _ = ragwright("check", study)
    assert code == 0 and "http://127.0.0.1:9/v1" in out


def test_init_to_a_first_run(villages: Path, ragwright: Ragwright, tmp_path: Path, runs: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    files = [villages / f"{name}.jsonl" for name in ("train", "validation", "test")]
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    questions.write_text(
        "".join(json.dumps({"question": q["question"], "answer": q["answers"][0]}) + "\n" for q in lines), "utf-8"
    )
    folder = tmp_path / "mine"
    code, out, err = ragwright("init", folder, "--documents", villages / "corpus", "--questions", questions)
    assert code == 0, err
    assert "24 documents" in out and "without evidence" in out and f"ragwright optimize {folder}/study.yaml" in out
    code, out, err = ragwright("check", folder / "study.yaml")
    assert code == 0, err
    with OpenAIServer(answer=read_villages) as server:
        text = (folder / "study.yaml").read_text(encoding="utf-8")
        lm = json.dumps({"model": "openai/reader", "api_base": server.url})
        (folder / "study.yaml").write_text(text.replace("lm: local ", f"lm: {lm} "), encoding="utf-8")
        code, out, err = ragwright("optimize", folder / "study.yaml", "--runs", runs, "--lm-calls", 200)
    assert code == 0, err
    assert "span_recall" not in out


def test_init_without_questions_says_how_to_go_on(villages: Path, ragwright: Ragwright, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    code, out, _ = ragwright("init", folder, "--documents", villages / "corpus")
    assert code == 0 and "questions.jsonl" in out and "data split" in out
    assert ragwright("init", folder, "--documents", villages / "corpus")[0] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "missing"),
        ("", "has no questions"),
        ('{"question": "Who?", "answer": "Mira"}\n{"question": 3}\n', ":2: 'question' must be"),
    ],
)
def test_init_names_the_file_whose_questions_are_wrong(
    villages: Path, ragwright: Ragwright, tmp_path: Path, lines: str | None, message: str
) -> None:
    questions = tmp_path / "questions.jsonl"
    if lines is not None:
        questions.write_text(lines, "utf-8")
    code, _, err = ragwright("init", tmp_path / "mine", "--documents", villages / "corpus", "--questions", questions)
    assert code == 1 and err.startswith(f"error: {questions}") and message in err
    assert [path.name for path in tmp_path.iterdir() if "mine" in path.name] == []


def test_data_import_and_check(ragwright: Ragwright, tmp_path: Path) -> None:
    articles = [
        {
            "title": f"Town {i}",
            "paragraphs": [
                {
                    "context": f"Town {i} was founded in {1500 + i}.",
                    "qas": [
                        {
                            "id": f"q{i}",
                            "question": f"When was town {i} founded?",
                            "answers": [{"text": str(1500 + i), "answer_start": len(f"Town {i} was founded in ")}],
                        }
                    ],
                }
            ],
        }
        for i in range(30)
    ]
    source = tmp_path / "squad.json"
    source.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    code, out, err = ragwright("data", "import", source, "--format", "squad", "--out", tmp_path / "towns")
    assert code == 0, err
    code, out, err = ragwright("data", "check", tmp_path / "towns")
    assert code == 0 and "30 of 30" in out, err
