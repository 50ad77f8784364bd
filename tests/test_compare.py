from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from optimize.evaluation.outcome import Outcome
from optimize.inference.statistics import paired_difference
from optimize.reporting.compare import as_json, compare
from optimize.reporting.compare_difference import difference_between, holm
from optimize.reporting.compare_page import build_page
from optimize.reporting.html import html
from optimize.reporting.markdown import markdown
from optimize.reporting.terminal import render_page
from optimize.runs.run_dir import RunDir
from programs.errors import RagwrightError
from tests.outcomes import Studied, make_rows


class Shelf:
    """Studies in one runs folder."""

    def __init__(self, folder: Path) -> None:
        self.studied = Studied(folder)
        self.runs = self.studied.run.path.parent

    def add(
        self, name: str, right: int, questions: slice = slice(None), change: Callable[[Outcome], Outcome] = lambda o: o
    ) -> RunDir:
        """A study whose winner answers the first `right` of its test questions."""
        run, o = RunDir(self.runs / f"{name}-{len(name):012d}"), self.studied.outcome
        assert o.test_winner is not None
        examples = self.studied.dataset.test[questions]
        run.evaluation("test-new", len(examples), lambda start: make_rows(examples, right))
        summary = replace(o.test_winner.summary, n=len(examples), score=right / len(examples))
        outcome = change(replace(o, study=name, test_winner=replace(o.test_winner, summary=summary)))
        study = (self.studied.run.path / "study.yaml").read_text(encoding="utf-8")
        run.write_text("study.yaml", study.replace("seed: 0", f"seed: {len(name)}"))
        run.write_json("outcome.json", outcome.as_json())
        return run


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def told(runs: list[RunDir]) -> str:
    return markdown(build_page(compare(runs))).replace("\\", "")


def test_winners_are_compared_question_by_question(shelf: Shelf) -> None:
    found = compare([shelf.add("one", 4), shelf.add("other", 12)])
    [between] = found.between
    assert (between.one, between.other) == ("one", "other")
    assert between.difference == paired_difference([0.0] * 4 + [1.0] * 8, [f"{n}" for n in range(12)])
    assert (between.verdict, between.shared) == ("better", 12)
    assert found.is_whole
    said = told([shelf.add("one", 4), shelf.add("other", 12)])
    assert "**Better: on the same 12 test questions, the winner of other scores +0.667 (95 % interval" in said


def test_different_data_sets_are_not_compared(shelf: Shelf) -> None:
    runs = [shelf.add("one", 4), shelf.add("other", 12, change=lambda o: replace(o, dataset="elsewhere"))]
    found = compare(runs)
    assert found.between == ()
    said = told(runs)
    assert said.splitlines()[2].startswith("**Not comparable: these studies' test scores cannot be set against each")
    assert "They have different data sets (handmade, elsewhere)" in said
    assert "do not compare one with another" in html(build_page(found))
    assert "## Side by side" in said
    assert "## Winner against winner" not in said
    assert as_json(found)["comparable"] is False


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda o: replace(o, dataset_fingerprint="0" * 12), "different states of the data set"),
        (lambda o: replace(o, metric="chrf"), "different metrics (token_f1, chrf)"),
        (
            lambda o: replace(o, test_winner=None, winner=None, verdict=None),
            "other has no winner that was tested and answered",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(shelf: Shelf, change: Callable[[Outcome], Outcome], why: str) -> None:
    runs = [shelf.add("one", 4), shelf.add("other", 12, change=change)]
    assert compare(runs).between == ()
    assert why in told(runs)


def test_those_that_fit_are_compared_among_others(shelf: Shelf) -> None:
    runs = [
        shelf.add("one", 4),
        shelf.add("other", 12, change=lambda o: replace(o, dataset="elsewhere")),
        shelf.add("third", 4),
    ]
    found = compare(runs)
    assert [(b.one, b.other) for b in found.between] == [("one", "third")]
    assert not found.is_whole
    assert "Not all of them could be compared" in told(runs)


def test_a_data_set_that_changed_gives_no_interval(shelf: Shelf) -> None:
    runs = [shelf.add("one", 4), shelf.add("other", 12)]
    document = shelf.studied.dataset.path / "corpus" / "new.md"
    document.write_text("Something new.", encoding="utf-8")
    assert compare(runs).between == ()
    assert "no longer there as it was" in told(runs)


def test_different_questions_of_one_test_are_compared_as_such(shelf: Shelf) -> None:
    [between] = compare([shelf.add("one", 4, slice(0, 8)), shelf.add("other", 4, slice(4, 12))]).between
    assert between.difference.mean == pytest.approx(0)
    assert (between.difference.n, between.shared, between.difference.clusters) == (12, 4, 12)


def test_the_interval_over_different_questions_holds_what_it_says() -> None:
    """Two equal programs on overlapping halves of 60 questions in 15 groups that are hard together."""
    generator = np.random.default_rng(0)
    held = found = 0
    for _ in range(300):
        groups = {f"{g}-{n}": str(g) for g in range(15) for n in range(4)}
        level = {str(g): generator.normal(0.5, 0.2) for g in range(15)}
        ids = list(groups)
        one, other = (
            {i: level[groups[i]] + generator.normal(0, 0.2) for i in generator.choice(ids, 36, replace=False)}
            for _ in range(2)
        )
        d = difference_between(one, other, groups)
        held += d.low <= 0 <= d.high
        found += d.p_value <= 0.05
    assert held / 300 >= 0.92
    assert found / 300 <= 0.08


def test_holm_keeps_the_order_and_the_first_counts_for_all() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_settings_and_studies_that_differ_are_named(shelf: Shelf) -> None:
    def other_winner(o: Outcome) -> Outcome:
        assert o.test_winner is not None
        return replace(o, test_winner=replace(o.test_winner, config=replace(o.test_winner.config, top_k=3)))

    said = told([shelf.add("one", 4), shelf.add("other", 12, change=other_winner)])
    assert "| top_k | 1 | 3 |" in said
    assert "| seed | 3 | 5 |" in said
    assert "| prompt tokens | 40,000 | 40,000 |" in said


def test_equal_names_are_told_apart(shelf: Shelf, tmp_path: Path) -> None:
    first = shelf.add("one", 4)
    second = RunDir(shelf.runs / "again")
    for name in ("outcome.json", "study.yaml"):
        text = (first.path / name).read_text(encoding="utf-8")
        second.write_text(name, text.replace("0123456789ab", "ffff56789ab0"))
    labels = [one.label for one in compare([first, second]).studies]
    assert labels == ["one-012345", "one-ffff56"]


@pytest.mark.parametrize("times", [1, 2])
def test_two_different_studies_are_needed(shelf: Shelf, times: int) -> None:
    with pytest.raises(RagwrightError, match="two studies or more" if times == 1 else "named twice"):
        compare([shelf.add("one", 4)] * times)


def test_the_terminal_and_machines_have_it_too(shelf: Shelf) -> None:
    found = compare([shelf.add("one", 4), shelf.add("other", 12)])
    console = Console(width=120, file=io.StringIO())
    console.print(render_page(build_page(found)))
    assert "Better: on the same 12 test questions" in console.file.getvalue()  # type: ignore[attr-defined]
    content = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert content["differences"][0]["mean"] == pytest.approx(8 / 12)
    assert [one["study"] for one in content["studies"]] == ["one", "other"]
    assert content["studies"][0]["test"]["winner"]["score"] == pytest.approx(4 / 12)


def test_of_several_studies_each_is_judged_with_regard_to_the_others(shelf: Shelf) -> None:
    runs = [shelf.add("one", 4), shelf.add("other", 9), *(shelf.add(f"same-{n}", 4) for n in range(3))]
    alone, among = compare(runs[:2]).between[0], compare(runs).between[0]
    assert alone.verdict == "better" and alone.p_adjusted <= 0.05
    assert among.difference == alone.difference
    assert among.p_adjusted == pytest.approx(4 * alone.p_adjusted) and among.p_adjusted > 0.05
    assert among.verdict == "underpowered"


def test_a_winner_that_failed_too_often_is_not_compared(shelf: Shelf) -> None:
    def failing(o: Outcome) -> Outcome:
        assert o.test_winner is not None
        failed = replace(o.test_winner, summary=replace(o.test_winner.summary, failures=6))
        return replace(o, test_winner=failed, verdict=None)

    runs = [shelf.add("one", 4), shelf.add("other", 12, change=failing)]
    assert compare(runs).between == ()
    said = told(runs)
    assert "other has no winner that was tested and answered enough" in said
    gained = next(line for line in said.splitlines() if line.startswith("| winner minus baseline"))
    assert gained.endswith(" — |")


def test_a_lost_answer_file_is_no_crash(shelf: Shelf) -> None:
    runs = [shelf.add("one", 4), shelf.add("other", 12)]
    (runs[1].evaluations / "test-new.jsonl").unlink()
    assert "no longer in the run folders" in told(runs)
