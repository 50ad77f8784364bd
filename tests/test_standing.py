from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from optimize.serving.standing import Comparison
from tests.answering_exports import export_for
from tests.conftest import Ragwright
from tests.openai_server import OpenAIServer
from tests.outcomes import Studied


@pytest.fixture
def studied(tmp_path: Path) -> Studied:
    return Studied(tmp_path / "study", documents=24)


@pytest.fixture
def export(studied: Studied, lm: OpenAIServer) -> Path:
    """In its study's folder, where the study's rows are."""
    return export_for(studied, studied.run.export, {"model": "openai/tiny", "api_base": lm.url, "retries": 0})


@pytest.fixture
def evaluate(studied: Studied, ragwright: Ragwright) -> Callable[..., tuple[int, Any, str]]:
    """Run `ragwright evaluate --json`: exit code, what it printed, stderr."""

    def run(folder: Path, *arguments: object) -> tuple[int, Any, str]:
        code, out, err = ragwright("evaluate", folder, "--runs", studied.run.path.parent, "--json", *arguments)
        return code, json.loads(out or "null"), err

    return run


def rewrite(studied: Studied, change: Callable[[str], str]) -> None:
    for file in (studied.dataset.path / "corpus").glob("test-*.md"):
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


def keep_rows(export: Path, wrong: int) -> None:
    """Rows of a study in which the winner had all test questions right but the first `wrong`."""
    manifest = json.loads((export / "manifest.json").read_text())
    unit = f"test-{manifest['configuration']}-{manifest['candidate']}.jsonl"
    rows = [json.loads(line) for line in (export.parent / "evaluations" / "test-new.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["score"] = float(number >= wrong)
    (export.parent / "evaluations" / unit).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_nothing_has_changed(export: Path, evaluate: Any) -> None:
    keep_rows(export, wrong=0)
    code, found, _ = evaluate(export, "--split", "test", "--limit", "20")
    assert code == 0 and found["changes"] == []
    compared = found["comparison"]
    assert (compared["paired"], compared["n"], compared["phase"]) == (True, 20, "test")
    # One question of markup asks for no year.
    assert compared["standing"] in ("same", "no change shown")
    assert found["score"] >= 0.9


def test_a_fall_is_found_question_by_question(export: Path, evaluate: Any, studied: Studied) -> None:
    keep_rows(export, wrong=0)
    # The facts stay where they are, and every document says something newer behind them.
    rewrite(studied, lambda text: text.replace("Nothing else", "It was rebuilt in 1899. Nothing else"))
    code, found, err = evaluate(export, "--split", "test", "--fail-if-fallen")
    assert code == 1 and "Fallen" in err
    assert "corpus has changed" in found["changes"][0]
    compared = found["comparison"]
    assert compared["standing"] == "fallen" and compared["paired"]
    assert compared["high"] < 0 and compared["before"] == 1.0 and compared["now"] == found["score"]
    assert evaluate(export, "--split", "test")[0] == 0


def test_a_moved_export_is_compared_mean_against_mean(
    export: Path, evaluate: Any, studied: Studied, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(export, moved)
    rewrite(studied, lambda text: text.replace("Nothing else", "It was rebuilt in 1899. Nothing else"))
    _, found, _ = evaluate(moved, "--split", "test")
    compared = found["comparison"]
    assert not compared["paired"] and compared["standing"] == "fallen"
    assert "mean against mean" in compared["sentence"]


def test_evidence_that_moved_is_found_again(export: Path, evaluate: Any, studied: Studied) -> None:
    rewrite(studied, lambda text: f"A new first sentence. {text}")
    code, found, _ = evaluate(export, "--split", "test")
    assert code == 0 and found["changes"]
    assert len(found["notes"]) == 24 and "test.jsonl" in found["notes"][0]
    # One question of markup finds nothing.
    assert found["span_recall"] == pytest.approx(23 / 24)


def test_questions_whose_evidence_is_gone_are_still_asked(export: Path, evaluate: Any, studied: Studied) -> None:
    corpus = studied.dataset.path / "corpus"
    (corpus / "test-3.md").unlink()
    (corpus / "test-5.md").write_text("Nobody knows.")
    code, found, err = evaluate(export, "--split", "test")
    assert (code, err) == (0, "")
    assert found["n"] == 24 and len(found["notes"]) == 2
    assert "test.jsonl:4: asked without its evidence: no document 'test-3.md'" in found["notes"][0]
    assert "test.jsonl:6: asked without its evidence: the quote '1805' is not in 'test-5.md'" in found["notes"][1]


def test_a_data_set_that_cannot_be_read_is_named(export: Path, evaluate: Any, studied: Studied) -> None:
    (studied.dataset.path / "test.jsonl").write_bytes(b"{\n[1]\n\xff")
    code, _, err = evaluate(export, "--split", "test")
    assert code == 1 and "test.jsonl: cannot be read" in err
    (studied.dataset.path / "test.jsonl").write_bytes(b"{\n[1]\n")
    code, _, err = evaluate(export, "--split", "test")
    assert code == 1 and "test.jsonl:1: " in err and "test.jsonl:2: a JSON object is needed" in err
    (studied.dataset.path / "test.jsonl").write_bytes(b"")
    code, _, err = evaluate(export, "--split", "test")
    assert code == 1 and "test.jsonl: holds no question" in err
    studied.dataset.path.rename(studied.dataset.path.with_name("gone"))
    code, _, err = evaluate(export, "--split", "test", "--corpus", studied.dataset.path.with_name("gone") / "corpus")
    assert code == 1 and "name its folder under dataset in" in err


def test_there_is_nothing_to_compare_train_with(export: Path, evaluate: Any) -> None:
    code, found, _ = evaluate(export, "--split", "train", "--limit", "3")
    assert code == 0 and found["comparison"] is None


def test_a_changed_corpus_can_be_adopted(export: Path, evaluate: Any, studied: Studied, tmp_path: Path) -> None:
    from optimize.exporting.exported import load_export
    from programs.errors import RagwrightError

    runs = studied.run.path.parent
    rewrite(studied, lambda text: f"{text} More is to come.")
    with pytest.raises(RagwrightError, match="ragwright evaluate"):
        load_export(export, runs)
    assert evaluate(export, "--split", "test", "--limit", "4", "--adopt")[0] == 0
    assert load_export(export, runs).ask("When was the tower test 7 built?")[0] == "1807"
    manifest = json.loads((export / "manifest.json").read_text())
    assert manifest["measured_again"][0]["n"] == 4
    code, _, err = evaluate(export, "--limit", "2", "--adopt")
    assert code == 1 and "nothing to adopt" in err


def test_the_documents_may_be_elsewhere(export: Path, evaluate: Any, studied: Studied, tmp_path: Path) -> None:
    pipeline = yaml.safe_load((export / "pipeline.yaml").read_text())
    moved = tmp_path / "corpus"
    Path(pipeline["corpus"]["path"]).rename(moved)
    assert evaluate(export, "--limit", "2")[0] == 1
    assert evaluate(export, "--limit", "2", "--corpus", moved)[0] == 0


@pytest.mark.parametrize(
    ("low", "high", "p_value", "standing"),
    [
        (-0.3, -0.1, 0.01, "fallen"),
        (-0.3, -0.1, 0.2, "no change shown"),
        (-0.3, -0.1, None, "fallen"),
        (-0.3, 0.1, 0.01, "no change shown"),
        (0.1, 0.3, 0.01, "risen"),
        (0.0, 0.0, 1.0, "same"),
    ],
)
def test_a_change_needs_interval_and_permutation(low: float, high: float, p_value: float | None, standing: str) -> None:
    compared = Comparison("test", 0.5, 0.4, 40, p_value is not None, (low + high) / 2, low, high, p_value)
    assert compared.standing == standing
    assert "0.400 now, 0.500 in the study's test phase, on 40 questions" in compared.sentence
