"""What a report finds out beyond the outcome: what settings are worth, where answers are lost, how the search went."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from optimize.cli.main import app
from optimize.compiling.candidate import Candidate, Demo, PredictorPrompt
from optimize.data.example import Example, Place
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.evaluation.outcome import Entry, Outcome, summarize
from optimize.reporting.blocks import Excerpt
from optimize.reporting.cases import LONGEST, excerpt
from optimize.reporting.html import html
from optimize.reporting.insight_funnel import Followed, follow, funnel, lost_by
from optimize.reporting.insight_worth import Worths, worths
from optimize.reporting.markdown import markdown
from optimize.reporting.prompt import changes
from optimize.reporting.record import Record, read_record
from optimize.reporting.report import build_page, write_report
from optimize.reporting.terminal import render_page
from optimize.runs.progress import Silence
from optimize.settings.study import StudyConfig, dump_study
from optimize.studies.check import check_study
from optimize.studies.study import Phases, Study
from programs.config import PipelineConfig
from programs.types import Document, Span
from tests.many_trials import with_trials
from tests.openai_server import OpenAIServer
from tests.outcomes import BASELINE, NASTY, WINNER, Studied
from tests.villages import read_villages, write_study


@pytest.fixture
def studied(tmp_path: Path) -> Studied:
    return Studied(tmp_path)


def record(studied: Studied, outcome: Outcome | None = None) -> Record:
    return Record(outcome or studied.outcome, studied.run, studied.dataset)


def section(studied: Studied, title: str, outcome: Outcome | None = None) -> str:
    _, written = write_report(outcome or studied.outcome, studied.run, studied.dataset)
    return written.read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]


# -- what settings are worth --


def searched(count: int, effect: float, seed: int = 0) -> tuple[list[Entry], dict[str, dict[str, float]]]:
    """Trials of a search in which `top_k` is worth `effect` a step and nothing else is worth anything."""
    generator = np.random.default_rng(seed)
    hard, entries, scores = generator.normal(0.3, 0.25, 24), [], {}
    for number in range(count):
        config = PipelineConfig(
            splitter=str(generator.choice(["recursive", "sentence"])),
            chunk_size=int(generator.choice([64, 128])),
            top_k=int(generator.choice([1, 2, 3])),
        ).canonical()
        unit, asked = f"trial-{number:04d}", int(generator.choice([6, 12, 24]))
        questions = [(6 * (number % 4) + n) % 24 for n in range(asked)]
        noise = generator.normal(effect * (config.top_k - 2), 0.3, asked)
        scores[unit] = {str(q): float(np.clip(hard[q] + e, 0, 1)) for q, e in zip(questions, noise, strict=True)}
        entries.append(Entry(unit, "search", config, f"bare-{number % 3}", summarize(Evaluation(()), {})))
    return entries, scores


def found(count: int, effect: float, seed: int = 0) -> Worths:
    worth = worths(*searched(count, effect, seed))
    assert worth is not None
    return worth


def test_a_setting_that_matters_comes_first_with_its_best_value() -> None:
    worth = found(40, 0.1)
    first, *others = worth.settings
    # A `retrieve_k` without a reranker is the `top_k`, and is not counted as a setting of its own.
    assert first.name == "top_k"
    assert (first.best, first.worst) == (3, 1)
    assert first.is_shown
    assert 0.05 < first.gap < 0.25
    assert [value.value for value in first.values] == [1, 2, 3]
    assert {one.name for one in others} == {"splitter", "chunk_size", "candidate"}
    assert not any(one.is_shown for one in others)
    assert sum(value.trials for value in first.values) == worth.entries == 40
    assert sum(value.asked for value in first.values) == worth.answers


def test_settings_that_are_worth_nothing_are_seldom_shown() -> None:
    shown = [one.is_shown for seed in range(12) for one in found(30, 0.0, seed).settings]
    assert sum(shown) <= 0.1 * len(shown)


def test_gains_of_a_setting_have_an_average_of_zero() -> None:
    for one in found(30, 0.1).settings:
        assert sum(value.gain for value in one.values) == pytest.approx(0, abs=1e-9)
        assert all(value.low < value.gain < value.high for value in one.values)


def test_of_very_many_trials_those_asked_most_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimize.reporting.insight_worth.MOST_ENTRIES", 10)
    worth = found(30, 0.1)
    assert (worth.entries, worth.left_out) == (10, 20)


def test_few_trials_say_nothing_of_single_settings(studied: Studied) -> None:
    assert "3 valid trials are too few" in section(studied, "What each setting is worth")


# -- where answers are lost --


def row(example_id: str, gold: float, score: float | None) -> Row:
    return Row(example_id, score, "an answer", measures={"gold_in_context": gold})


def test_a_question_counts_where_it_is_lost() -> None:
    rows = {
        "a": row("a", 0, 0.0),
        "b": row("b", 0, 1.0),
        "c": row("c", 1, 0.2),
        "d": row("d", 1, 0.9),
        "e": row("e", 1, None),
        "f": row("f", 0, 0.0),
        "no evidence": Row("no evidence", 1.0, "an answer"),
    }
    one = funnel(rows, {"a": "splitter", "b": "top_k"})
    assert one is not None
    assert one.fates == {
        "a": "splitter", "b": "top_k", "c": "generation", "d": "answered", "e": "failed", "f": "retrieval"
    }  # fmt: skip
    assert (one.asked, one.lucky) == (5, 1)
    assert {stage: count for stage, count in one.lost.items() if count} == {
        "splitter": 1, "top_k": 1, "retrieval": 1, "generation": 1
    }  # fmt: skip
    assert one.score_with == pytest.approx(0.55)
    assert one.score_without == pytest.approx(1 / 3)
    assert funnel({"x": rows["no evidence"]}, {}) is None


def test_nothing_is_built_to_follow_retrieval(studied: Studied, tmp_path: Path) -> None:
    corpus, test = studied.dataset.corpus, studied.dataset.test
    lost, why = lost_by(tmp_path / "runs", corpus, WINNER, "rag", test)
    assert (lost, why) == ({}, "its index is no longer there, and a report builds none")
    assert not (tmp_path / "runs" / "indexes").exists()
    assert "queries of its own" in lost_by(tmp_path / "runs", corpus, WINNER, "multihop", test)[1]
    listwise = replace(WINNER, reranker="llm", retrieve_k=3)
    assert "makes no calls" in lost_by(tmp_path / "runs", corpus, listwise, "rag", test)[1]


def test_the_stage_that_loses_the_gold_is_found(studied: Studied, tmp_path: Path) -> None:
    from programs.search import open_search

    runs, corpus, test = tmp_path / "runs", studied.dataset.corpus, studied.dataset.test
    whole = replace(BASELINE, retriever="sparse", top_k=1, retrieve_k=1).canonical()
    open_search(runs, corpus, whole)
    followed = follow(runs, corpus, whole, "rag", test)
    assert followed.why_not == ""
    # The question that is all markup shares no word with its document.
    assert followed.lost == {"test-4": "retriever"}
    assert followed.ranks.keys() == {"test-4"}


def test_the_report_says_where_answers_are_lost(studied: Studied) -> None:
    def measured(unit: str, golds: list[float]) -> None:
        rows = studied.evaluations[unit].rows
        changed = [replace(r, measures={**r.measures, "gold_in_context": g}) for r, g in zip(rows, golds, strict=True)]
        lines = [json.dumps(r.as_json()) for r in changed]
        (studied.run.evaluations / f"{unit}.jsonl").write_text("\n".join(lines), encoding="utf-8")

    measured("test-base", [1.0] * 6 + [0.0] * 6)
    measured("test-new", [1.0] * 12)
    said = section(studied, "Where answers are lost")
    assert "Of 12 questions with evidence the baseline loses 9; the largest loss: 6 not handed over." in said
    assert "| not handed over | 6 of 12 | 0 of 12 |" in said
    assert "| handed over, answered wrongly | 3 of 12 | 2 of 12 |" in said
    assert "| answered from it | 3 | 10 |" in said
    assert "Of the winner it is not known which stage" in said


def test_it_is_said_how_far_below_the_gold_was_found(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ("test-base", "test-new"):
        rows = studied.evaluations[unit].rows
        lines = [json.dumps(replace(r, measures={**r.measures, "gold_in_context": 0.0}).as_json()) for r in rows]
        (studied.run.evaluations / f"{unit}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    lost = {f"test-{n}": "retriever" for n in range(4)} | {"test-4": "splitter"}
    ranks = {"test-0": 4, "test-1": 10, "test-2": 90, "test-3": None}
    monkeypatch.setattr("optimize.reporting.funnel.follow", lambda *args: Followed(lost, ranks))  # type: ignore[arg-type]
    told = "Of the 4 that the winner loses at retrieve_k, 2 stand within rank 10 and 3 within rank 100"
    assert told in section(studied, "Where answers are lost")
    # An older record has no ranks: it is completed where retrieval can be followed, and kept where it cannot.
    kept = json.loads((studied.run.path / "lost.json").read_text(encoding="utf-8"))
    older = {unit: {name: one[name] for name in ("asked", "lost", "why")} for unit, one in kept.items()}
    studied.run.write_json("lost.json", older)
    monkeypatch.setattr("optimize.reporting.funnel.follow", lambda *args: Followed({}, {}, "it is gone"))
    assert "| cut by the splitter | 1 of 12 | 1 of 12 |" in section(studied, "Where answers are lost")


def test_without_evidence_there_is_no_funnel(studied: Studied) -> None:
    _, written = write_report(studied.outcome, studied.run, studied.dataset)
    assert "## Where answers are lost" not in written.read_text(encoding="utf-8")


# -- questions won and lost --


def test_the_gold_in_a_passage_is_marked(studied: Studied) -> None:
    page = html(build_page(record(studied)))
    assert re.search(
        r"<blockquote><cite>test-3.md, 0–34</cite><p>The tower test 3 was built in <mark>1803</mark></p>", page
    )
    said = section(studied, "Questions won and lost")
    assert "The tower test 3 was built in **1803**" in said
    assert "the winner does better on 7, worse on 0, and as well on 5" in said
    assert "**Won too: 2 more:**" in said


def test_a_long_passage_is_cut_around_its_gold() -> None:
    text = "a" * 2000 + "GOLD" + "b" * 2000
    place = Place(Span("d", 2000, 2004), "GOLD")
    shown = excerpt(Span("d", 100, 3900), Example("x", "?", ("GOLD",), ((place,),)), Document("d", text))
    assert shown.parts[0] == ("… ", False)
    assert shown.parts[-1] == (" …", False)
    assert ("GOLD", True) in shown.parts
    assert sum(len(part) for part, _ in shown.parts) <= LONGEST + 4
    plain = excerpt(Span("d", 0, 1000), Example("x", "?", ("GOLD",)), Document("d", text))
    assert plain == Excerpt("d, 0–1,000", (("a" * LONGEST, False), (" …", False)))


# -- the prompt before and after --


def keep_candidates(studied: Studied) -> None:
    long = "\n".join(f"Rule {n}." for n in range(20))
    bare = Candidate({"generate": PredictorPrompt(f"{long}\nAnswer.")})
    demos = (Demo("train-3", {"answer": "1803"}), Demo("gone", {"answer": "<i>x</i>"}))
    made = Candidate({"generate": PredictorPrompt(f"{long}\nAnswer briefly.", demos)}, "labeled_fewshot", {"k": 2})
    for name, candidate in (("bare-01234567", bare), ("labeled_fewshot-89abcdef", made)):
        studied.run.write_json(f"candidates/{name}.json", candidate.as_json())


def test_the_prompt_is_shown_as_what_changed(studied: Studied) -> None:
    keep_candidates(studied)
    said = section(studied, "The prompt before and after")
    assert "- Answer.\n+ Answer briefly.\n+\n+ question: When was the tower train 3 built?\n+ answer: 1803" in said
    assert "@ 17 lines as before" in said
    assert "(example gone)" in said
    assert "Made by labeled\\_fewshot (k 2), without an LM call." in said.replace("labeled_", "labeled\\_")
    page = html(build_page(record(studied)))
    assert '<del class="removed">- Answer.' in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page


def test_a_run_without_its_candidates_has_a_report(studied: Studied) -> None:
    shutil.rmtree(studied.run.candidates)
    studied.run.candidates.mkdir()
    _, written = write_report(studied.outcome, studied.run, studied.dataset)
    assert "## The prompt" not in written.read_text(encoding="utf-8")


def test_equal_texts_have_no_change() -> None:
    assert list(changes(["a", "b"], ["a", "b"])) == [("skipped", "2 lines as before")]
    assert list(changes(["a"], ["b"])) == [("removed", "a"), ("added", "b")]


# -- how the search went --


def test_a_trial_is_set_against_the_baseline_on_its_own_questions(studied: Studied) -> None:
    said = section(studied, "How the search went")
    rows = {line.split(" | ")[0].strip("|* "): line for line in said.splitlines() if "trial-0" in line}
    # trial-0002 got 1 of 6 right, of which the baseline had 4.
    assert rows["trial-0002"] == "| trial-0002 | 0.250 | — | — | 6 | 0.167 | -0.500 |"
    assert rows["trial-0000"] == "| trial-0000 | 1.000 | 0.750 | 0.500 | 12 | 0.500 | +0.167 |"
    assert "**trial-0001**" in said
    assert "1 of 3 trials ended before all 12 questions" in said
    page = html(build_page(record(studied)))
    assert page.count('class="mark stopped"') == 1
    assert "trial-0002: -0.500 after 6 questions, ended early" in page


def test_a_failed_question_counts_as_asked(studied: Studied) -> None:
    rows = studied.evaluations["trial-0000"].rows
    failed = [replace(rows[0], score=None, error="gone"), *rows[1:]]
    lines = "\n".join(json.dumps(row.as_json()) for row in failed)
    (studied.run.evaluations / "trial-0000.jsonl").write_text(lines, encoding="utf-8")
    said = section(studied, "How the search went")
    # 5 of the 11 that have a score are right, of which the baseline has 3.
    assert "| trial-0000 | 1.000 | 0.714 | 0.455 | 12 | 0.455 | +0.182 |" in said


def test_a_search_for_trade_offs_says_so(studied: Studied) -> None:
    assert "trade-off" not in section(studied, "How the search went")
    frugal = StudyConfig(name="towers", dataset=str(studied.dataset.path), minimize=["prompt_tokens"])
    studied.run.write_text("study.yaml", dump_study(frugal))
    assert "every other time for the trade-off of score and prompt tokens" in section(studied, "How the search went")


# -- costs --


def test_repeats_do_not_make_use_dearer(studied: Studied) -> None:
    for unit in ("test-base", "test-new"):
        lines = [json.dumps(replace(row, repeats=2).as_json()) for row in studied.evaluations[unit].rows]
        (studied.run.evaluations / f"{unit}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert "| prompt tokens | 20,000 | 20,000 |" in section(studied, "What it costs")


def test_the_cost_in_use_is_scaled(studied: Studied) -> None:
    said = section(studied, "What it costs")
    assert "| prompt tokens | 40,000 | 40,000 |" in said
    assert "| waiting for the LM, one after another | 4 min 10 s | 4 min 10 s |" in said
    assert "| money | 1.00 USD | 1.00 USD |" in said


# -- which command it was --


@pytest.mark.parametrize("phases", [Phases(search=False), Phases(compile=False)], ids=["compile", "sweep"])
def test_a_study_goes_on_by_the_command_that_began_it(villages: Path, tmp_path: Path, phases: Phases) -> None:
    with OpenAIServer(answer=read_villages) as server:
        checked = check_study(write_study(tmp_path / "study.yaml", villages, server.url, trials=2))
        study = Study(checked.study, checked.dataset, checked.spec, tmp_path / "runs", Silence(), phases=phases)
        outcome = study.execute()
    said = build_page(Record(outcome, study.run, study.dataset))
    assert ("command", f"ragwright {phases.command}") in said.about
    assert f"ragwright {phases.command} {study.run.path}/study.yaml" in markdown(said)


def test_every_command_that_runs_a_study_is_known_by_its_phases() -> None:
    named = {phases.command for phases in (Phases(), Phases(compile=False), Phases(search=False))}
    assert named == {"optimize", "sweep", "compile"} < {command.name for command in app.registered_commands}


# -- what is no longer there --


def test_a_data_set_that_changed_is_not_shown_as_what_was_asked(studied: Studied) -> None:
    studied.run.write_json("outcome.json", studied.outcome.as_json())
    (studied.dataset.path / "corpus" / "test-3.md").write_text("Something else. " * 9, encoding="utf-8")
    changed = read_record(studied.run)
    assert changed.dataset is None
    page = html(build_page(changed))
    assert "the data set is no longer at" in page
    assert "Something else" not in page and "Questions won and lost" not in page
    assert "Better" in page and "How the search went" in page


def test_a_kept_baseline_names_what_it_is_compared_with(studied: Studied) -> None:
    for unit in ("confirm-base", "confirm-new"):
        lines = [
            json.dumps(replace(row, measures={**row.measures, "gold_in_context": 1.0}).as_json())
            for row in studied.evaluations[unit].rows
        ]
        (studied.run.evaluations / f"{unit}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = html(build_page(record(studied, studied.kept)))
    funnel_svg = re.search(r'<svg[^>]*aria-label="Questions left.*?</svg>', page)
    assert funnel_svg is not None
    assert ">best other finalist</text>" in funnel_svg[0] and "winner</text>" not in funnel_svg[0]


@pytest.mark.parametrize("shape", ["outcome", "confirmed", "kept", "begun", "untried", "no winner", "void", "unknown"])
def test_every_shape_of_a_study_is_told(studied: Studied, shape: str) -> None:
    keep_candidates(studied)
    outcome = {
        "untried": replace(studied.begun, trials=(), optimism=None),
        "no winner": replace(studied.confirmed, winner=None, choice=""),
        "void": replace(studied.outcome, verdict=None),
        "unknown": replace(studied.outcome, trials=(failed(studied.outcome.trials[0]),)),
    }.get(shape) or getattr(studied, shape)
    page = build_page(record(studied, outcome))
    assert html(page).count("<svg") >= (0 if shape == "untried" else 1)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html(page)).lower().replace("nanmean", "")
    console = Console(width=80, file=io.StringIO())
    console.print(render_page(page))
    assert page.word.capitalize() in console.file.getvalue()  # type: ignore[attr-defined]


def failed(entry: Entry) -> Entry:
    """A trial of which nothing was answered."""
    nothing = replace(entry.summary, score=math.nan, stderr=math.nan, low=math.nan, high=math.nan, failures=12)
    return replace(entry, summary=nothing, estimate=None, spread=None)


# -- the forms --


def test_the_terminal_has_the_same(studied: Studied) -> None:
    keep_candidates(studied)
    console = Console(width=100, file=io.StringIO())
    console.print(render_page(build_page(record(studied))))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.strip().startswith("Better: the winner scores 0.833")
    for promised in ("Baseline and winner", "+ Answer briefly.", "1803", "Scores", "ragwright compare", NASTY[:20]):
        assert promised in said or promised == "Scores"
    assert "see report.html" in said


def headings(page: str) -> list[int]:
    return [int(level) for level in re.findall(r"<h(\d)", page)]


def test_the_page_can_be_used_by_keyboard_and_ear(studied: Studied) -> None:
    keep_candidates(studied)
    page = html(build_page(record(studied)))
    assert page.index('class="skip" href="#main"') < page.index('<main id="main"')
    assert headings(page)[0] == 1
    assert set(headings(page)[1:]) == {2}
    assert re.findall(r"<svg(?![^>]*role=\"img\" aria-label=\"[^\"]+\")", page) == []
    assert re.findall(r'<div class="scroll"(?! tabindex="0" role="region" aria-label="[^"]+")', page) == []
    targets = re.findall(r'href="#([^"]+)"', page)
    assert len(targets) > 8
    assert all(f'id="{target}"' in page for target in targets)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    # What is drawn stands in a table, too.
    figures = re.findall(r"<figure.*?</figure>", page)
    assert figures
    assert sum("<table" not in figure for figure in figures) <= 2


def test_a_thousand_trials_are_a_page_that_can_be_opened(studied: Studied) -> None:
    outcome = with_trials(studied, 1000)
    began = time.perf_counter()
    page, _ = write_report(outcome, studied.run, studied.dataset)
    assert time.perf_counter() - began < 30
    text = page.read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    for said in ("the other 800 are in outcome.json", "The 40 that were asked most are drawn", "Of 1,001 the 300 on"):
        assert said in text


def test_what_a_report_found_out_is_kept(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def followed(*args: Any) -> Followed:
        calls.append(args)
        return Followed({}, {})

    monkeypatch.setattr("optimize.reporting.funnel.follow", followed)
    write_report(studied.outcome, studied.run, studied.dataset)
    write_report(studied.outcome, studied.run, studied.dataset)
    assert len(calls) == 2


def test_passages_that_are_not_shown_are_counted(studied: Studied) -> None:
    rows = studied.evaluations["test-new"].rows
    spans = tuple(Span(f"test-{n}.md", 0, 20) for n in range(5))
    lines = [json.dumps(replace(r, spans=spans).as_json()) for r in rows]
    (studied.run.evaluations / "test-new.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert "3 of 5 passages shown to the LM" in html(build_page(record(studied)))
    assert "    - and 2 more" in section(studied, "Questions won and lost")


def test_what_the_lm_reads_is_there_once_it_is_exported(studied: Studied) -> None:
    keep_candidates(studied)
    winner = studied.outcome.winner
    assert winner is not None
    studied.run.export.mkdir()
    messages = [{"predictor": "generate", "messages": [{"role": "user", "content": "Read <this>:\n{{context}}"}]}]
    studied.run.write_json("export/messages.json", messages)
    studied.run.write_json("export/manifest.json", {"configuration": "other", "candidate": winner.candidate})
    assert "What the LM reads now" not in section(studied, "The prompt before and after")
    known = {"configuration": winner.config.fingerprint(), "candidate": winner.candidate}
    studied.run.write_json("export/manifest.json", known)
    assert "@ user\n  Read <this>:\n  {{context}}" in section(studied, "The prompt before and after")
    assert "Read &lt;this&gt;:" in html(build_page(record(studied)))
