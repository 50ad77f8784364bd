from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import dspy
import pytest

from optimize.compiling import CompileTask
from optimize.data.dataset import load_dataset
from optimize.data.example import Example
from optimize.metrics.table import load_metric
from optimize.runs.progress import Silence
from optimize.serving.evaluating import evaluate_target
from optimize.studies.check import check_retrieval, check_study
from optimize.studies.plan import describe_dataset
from programs.errors import ProblemsError, RagwrightError
from tests.villages import write_study

UNKNOWN = "token_f1 needs known answers, and 5 questions of half have none (add them, or choose a metric"


@pytest.fixture
def half(villages: Path, tmp_path: Path) -> Path:
    """The villages, but the answers to the first five test questions are not known."""
    folder = tmp_path / "half"
    shutil.copytree(villages, folder)
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines[:5]:
        line["answers"] = None
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_study_that_scores_answers_is_refused(half: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", half, "http://localhost:1/v1")
    with pytest.raises(ProblemsError) as error:
        check_study(file)
    assert str(error.value).startswith(f"{file}:1: metric: {UNKNOWN}")


def test_study_that_scores_retrieval_alone_is_not(half: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", half, "http://localhost:1/v1")
    _, dataset = check_retrieval(file, lambda study: study)
    assert dataset.unknown_answers == 5


def test_data_check_counts_them(half: Path, villages: Path) -> None:
    questions = len(load_dataset(half).examples)
    assert describe_dataset(half)["answers"] == f"not known for 5 of {questions} questions"
    assert describe_dataset(villages)["answers"] == f"not known for 0 of {questions} questions"


def test_demos_show_known_answers_only() -> None:
    train = (Example("1", "One?", None), Example("2", "Two?", ("b",)), Example("3", "Three?", ()))
    made = CompileTask(dspy.Module, train, load_metric("token_f1"), seed=0).trainset()
    assert sorted((example.question, example.answer) for example in made) == [
        ("Three?", "unanswerable"),
        ("Two?", "b"),
    ]


def test_baseline_is_not_evaluated_on_them(half: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", half, "http://localhost:1/v1")
    with pytest.raises(RagwrightError, match=re.escape(UNKNOWN)):
        evaluate_target(file, "test", None, tmp_path / "runs", Silence())
