from __future__ import annotations

import html as entities
import io
import math
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from optimize.compiling.candidate import Candidate, PredictorPrompt
from optimize.evaluation.outcome import Guard, Outcome
from optimize.reporting.blocks import Bullets, Page, Section, Table
from optimize.reporting.charts import Mark, pareto_front, trade_off_chart
from optimize.reporting.drawing import nice_ticks
from optimize.reporting.funnel import LOST
from optimize.reporting.headline import headline
from optimize.reporting.markdown import markdown
from optimize.reporting.record import Record
from optimize.reporting.report import build_page, render_terminal, write_report
from optimize.reporting.trade_offs import trade_offs
from optimize.runs.run_dir import RunDir
from tests.conftest import Ragwright
from tests.outcomes import NASTY, Studied


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Studied:
    return Studied(tmp_path_factory.mktemp("report"))


class _Balanced(HTMLParser):
    """Collects the tags of a page and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "link", "line", "rect", "circle", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "circle"):
            assert self.open.pop() == tag


def reports(studied: Studied, outcome: Outcome) -> tuple[str, str]:
    html, markdown = write_report(outcome, studied.run, studied.dataset)
    assert (html.name, markdown.name) == ("report.html", "report.md")
    return html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


def printed(outcome: Outcome) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(render_terminal(outcome))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_verdict_comes_first_with_its_interval(studied: Studied) -> None:
    d = studied.outcome.difference
    assert d is not None
    sentence = headline(studied.outcome).sentence
    assert sentence.startswith("Better: the winner scores 0.833 token_f1 on 12 test questions, the baseline 0.250")
    assert f"{d.low:+.3f} to {d.high:+.3f}" in sentence
    html, markdown = reports(studied, studied.outcome)
    assert sentence in markdown.splitlines()[2]
    assert html.index("0.833 token_f1 on 12") < html.index("data set")
    assert sentence in printed(studied.outcome).replace("\n", " ").replace("  ", " ")


def test_every_format_has_the_numbers(studied: Studied) -> None:
    html, markdown = reports(studied, studied.outcome)
    assert studied.outcome.test_winner is not None
    winner = studied.outcome.test_winner.summary
    for text in (html.replace("\xa0", " "), markdown.replace("\\", "")):
        assert f"0.833 [{winner.low:.3f}, {winner.high:.3f}]" in text
        assert "opened 2 times" in text
        assert "labeled_fewshot-89abcdef" in text
        assert "120 of 600 allowed" in text
        assert "1 min 15 s" in text
        assert "0.1200 USD" in text
        assert "ragwright report towers-0123456789ab" in text


def test_markup_in_the_data_stays_text(studied: Studied) -> None:
    html, markdown = reports(studied, studied.outcome)
    assert "<script" not in html
    assert "<b>nonsense" not in html + markdown
    assert "&lt;b&gt;nonsense" in html
    assert "a &lt;warning&gt;" in html
    assert "\\<warning\\>" in markdown


def test_a_question_of_markup_is_shown_as_it_was_asked(studied: Studied) -> None:
    html, markdown = reports(studied, studied.outcome)
    assert NASTY in entities.unescape(html)
    assert "worse on 0" in html
    assert "- **Is \\<script\\>alert('x')\\</script\\> \\| \\*bold\\* \\`code\\` safe?** Gold: 1804" in markdown


@pytest.mark.parametrize("phase", ["begun", "confirmed", "outcome"])
def test_the_page_is_whole_and_needs_no_network(studied: Studied, phase: str) -> None:
    html, _ = reports(studied, getattr(studied, phase))
    page = _Balanced(html)
    assert page.open == []
    assert not page.seen & {"script", "img", "iframe"}
    # Links lead to the page's own sections; the icon is an empty one, so that none is asked for.
    assert not re.search(r"src=|href=\"(?!#|data:,)|@import|url\(", html)
    assert "prefers-color-scheme:dark" in html


def test_a_study_in_progress_says_so(studied: Studied) -> None:
    _, markdown = reports(studied, studied.begun)
    assert "Not confirmed: on 12 search questions the baseline scores 0.333" in markdown
    assert "trial-0000, believed to score 0.450 ± 0.040 (0.500 on the 12 questions that it was asked)" in markdown
    assert "## Finalists" not in markdown
    assert "## Questions won" not in markdown
    assert "winner at work" not in markdown
    assert "best trial so far" in printed(studied.begun)
    untried = replace(studied.begun, trials=())
    assert "no trial has enough answers yet" in reports(studied, untried)[1]


def test_before_the_test_the_confirm_scores_are_compared(studied: Studied) -> None:
    _, markdown = reports(studied, studied.confirmed)
    assert "Not tested yet: on 12 confirm questions the winner scores 0.833" in markdown
    assert "| token_f1 on confirm | 0.250 \\[" in markdown
    assert "opened" not in markdown
    assert "| test | — | — | — |" in markdown


def test_finalists_without_a_winner_and_a_void_test_are_told(studied: Studied) -> None:
    nobody = replace(studied.confirmed, winner=None, choice="")
    assert headline(nobody).word == "no winner"
    void = replace(studied.outcome, verdict=None)
    assert headline(void).sentence.startswith("Void: ")
    for outcome in (nobody, void):
        reports(studied, outcome)
        printed(outcome)


def test_a_void_comparison_says_why_and_nothing_of_a_difference(studied: Studied) -> None:
    base = studied.outcome.test_baseline
    assert base is not None and studied.outcome.difference is not None
    silent = replace(base, summary=replace(base.summary, empty_answers=12))
    void = replace(studied.outcome, verdict=None, test_baseline=silent)
    assert "the baseline failed on 0 and answered 12 of 12 with nothing" in headline(void).detail
    html, markdown = reports(studied, void)
    assert f"{studied.outcome.difference.mean:+.3f}" in reports(studied, studied.outcome)[0]
    assert f"{studied.outcome.difference.mean:+.3f}" not in html.split("Metrics that may not fall")[0]
    assert "The comparison is void" in markdown
    kept = studied.kept.finalists[0]
    nothing = replace(kept, summary=replace(kept.summary, empty_answers=12))
    unfair = replace(studied.kept, verdict=None, finalists=(nothing, *studied.kept.finalists[1:]))
    assert headline(unfair).word == "void"


def test_what_the_verdict_is_about_is_drawn(studied: Studied) -> None:
    html, _ = reports(studied, studied.outcome)
    assert 'aria-label="winner minus baseline, 95 % interval: difference 0.583"' in html
    one_group = replace(studied.outcome.difference, low=-math.inf, high=math.inf)  # type: ignore[type-var]
    assert (
        "winner minus baseline, 95 % interval"
        not in reports(studied, replace(studied.outcome, difference=one_group))[0]
    )


def test_a_trial_that_was_asked_little_is_named_by_its_estimate(studied: Studied) -> None:
    _, markdown = reports(studied, studied.begun)
    assert "- best trial so far: **0.450**, ± 0.040 token_f1, estimate" in markdown
    assert "- baseline: **0.350**, ± 0.040 token_f1, estimate" in markdown


def test_what_is_set_differently_stands_by_itself(studied: Studied) -> None:
    _, markdown = reports(studied, studied.outcome)
    section = markdown.split("## Baseline and winner")[1].split("\n## ")[0]
    differently = section.split("| set differently | baseline | winner |")[1].split("\n\n")[0]
    assert "| chunk_size | 256 | 64 |" in differently and "prompt_format" not in differently
    assert "| prompt_format | compact |" in section.split("settings are the same in both")[1]


def test_the_table_of_trials_has_every_setting_in_which_they_differ(studied: Studied) -> None:
    first, *others = studied.outcome.trials
    wider = replace(first, config=replace(first.config, expansion="neighbours"))
    _, markdown = reports(studied, replace(studied.outcome, trials=(wider, *others)))
    header = markdown.split("## All trials")[1].split("| trial |")[1].splitlines()[0]
    assert "expansion" in header and "prompt_format" not in header


@pytest.mark.parametrize("command", ["optimize", "sweep", "compile"])
def test_the_command_that_made_the_study_goes_on_with_it(tmp_path: Path, command: str) -> None:
    studied = Studied(tmp_path)
    assert "if `optimize` made it" in reports(studied, studied.outcome)[1]
    studied.run.write_json("command.json", command)
    _, markdown = reports(studied, studied.outcome)
    assert f"\nragwright {command} {studied.run.path}/study.yaml --runs" in markdown
    assert "if `optimize` made it" not in markdown


@pytest.mark.parametrize(
    "said", ["_all_ of it", "~~no~~", "a & b", "x $y$ z", "*so*", "a `b`", "[link](x)", "| cell |", "<b>"]
)
def test_no_text_of_the_data_becomes_markup(said: str) -> None:
    from markdown_it import MarkdownIt

    page = Page("t", (), "better", said, sections=(Section("s", (Table(("a",), ((said,),)), Bullets((said,)))),))
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown(page))
    shown = entities.escape(said, quote=False)
    assert html.count(shown) == 3
    assert "$" not in said or "\\$" in markdown(page)


@pytest.mark.parametrize("verdict", ["better", "worse", "not shown better", "underpowered"])
def test_every_verdict_has_words(studied: Studied, verdict: str) -> None:
    said = headline(replace(studied.outcome, verdict=verdict))  # type: ignore[arg-type]
    assert said.word == verdict
    assert said.sentence.endswith(".")


def test_a_baseline_that_is_kept_is_the_result(studied: Studied) -> None:
    said = headline(studied.kept)
    assert said.word == "not shown better"
    assert "baseline: 0.410 ± 0.030 token_f1, the best other one 0.390 ± 0.030" in said.detail
    assert said.detail.endswith("Keep it; the test was not opened.")
    _, markdown = reports(studied, studied.kept)
    assert "Chosen: the baseline, the best estimate" in markdown
    assert "|  | baseline (chosen) | finalist 1 |" in markdown
    assert "| estimate | 0.410 ± 0.030 | 0.390 ± 0.030 |" in markdown
    assert "winner at work" not in markdown
    assert "best other finalist" in printed(studied.kept)


def test_a_cheap_baseline_is_not_said_to_be_the_best(studied: Studied) -> None:
    base, other = studied.kept.finalists
    cheap = "the cheapest of 2 that lose no more than 0.02 to the best (95 %)"
    kept = replace(studied.kept, choice=cheap, finalists=(base, replace(other, estimate=0.42)))
    assert f"what you have is {cheap}" in headline(kept).detail
    assert "nothing is expected to beat" not in headline(kept).detail


def test_a_trial_that_is_not_ahead_is_not_praised(studied: Studied) -> None:
    ahead = replace(studied.begun, baseline=replace(studied.begun.baseline, estimate=0.5, spread=0.01))
    assert "no more than what is believed of the baseline, 0.500 ± 0.010" in headline(ahead).detail
    assert "no more than" not in headline(studied.begun).detail


def test_an_interval_alone_shows_nothing(studied: Studied) -> None:
    d = studied.outcome.difference
    assert d is not None
    alone = replace(studied.outcome, verdict="underpowered", difference=replace(d, low=0.01, p_value=0.07))
    assert "the permutation test does not confirm it (p = 0.070)" in headline(alone).sentence
    other = replace(alone, difference=replace(d, low=-0.01, p_value=0.04))
    assert "(p = 0.040), but the interval does not confirm it" in headline(other).sentence
    neither = replace(alone, difference=replace(d, low=-0.01, p_value=0.4, detectable=0.3))
    assert "would show a difference of 0.300 or more only" in headline(neither).sentence
    one = replace(alone, difference=replace(d, low=-math.inf, high=math.inf, clusters=1))
    assert "all questions are of one group" in headline(one).sentence


def test_a_guard_that_fell_is_in_the_verdict(studied: Studied) -> None:
    d = studied.outcome.difference
    assert d is not None
    guards = (Guard("groundedness", 0.02, replace(d, mean=-0.2, low=-0.3, high=-0.1), "fell"),)
    fallen = replace(studied.outcome, guards=guards)
    assert headline(fallen).word == "better, but a guard fell"
    assert "; but groundedness fell by 0.200, more than the 0.02 allowed." in headline(fallen).sentence
    html, markdown = reports(studied, fallen)
    assert 'class="verdict better"' not in html
    assert "| groundedness | 0.02 | -0.200 \\[-0.300, -0.100\\] | 12 | fell: shown" in markdown
    assert headline(studied.outcome).word == "better"


def test_what_is_believed_of_a_trial_comes_before_its_score(studied: Studied) -> None:
    backwards = replace(studied.outcome, trials=studied.outcome.trials[::-1])
    _, markdown = reports(studied, backwards)
    section = markdown.split("## All trials")[1].split("##")[0]
    rows = [line for line in section.splitlines() if "trial-" in line]
    assert [re.findall(r"trial-\d+", row)[0] for row in rows] == ["trial-0000", "trial-0001", "trial-0002"]
    assert rows[0].startswith("| trial-0000 | 0.450 ± 0.040 | 0.500 ± ")
    assert " ± " in rows[2] and "| 6 | 20 |" in rows[2]


def test_the_best_of_many_is_said_to_be_too_high(studied: Studied) -> None:
    said = (
        "The best search score as it stands is 0.917 (trial-0001, asked 12). Whoever takes the best of 3 by its score"
    )
    for outcome in (studied.outcome, studied.begun):
        one = replace(outcome, trials=studied.outcome.trials)
        assert (
            f"{said} ends about 0.070 too high; the search goes by the estimate, here 0.800 ± 0.040."
            in reports(studied, one)[1]
        )
    assert "too high; the" not in reports(studied, replace(studied.outcome, optimism=None))[1]


def test_each_phase_has_what_was_known_in_it(studied: Studied) -> None:
    _, markdown = reports(studied, studied.outcome)
    assert "| search, estimate | 12 | 0.350 ± 0.040 | 0.800 ± 0.040 |" in markdown
    assert "| confirm | 12 | 0.250 ± " in markdown


def test_every_role_has_its_cost(studied: Studied) -> None:
    _, markdown = reports(studied, studied.outcome)
    assert "| answering | 100 | 4,300 | 0.1000 USD |" in markdown
    assert "| writing instructions | 20 | 860 | 0.0200 USD |" in markdown


def test_the_trade_offs_are_what_no_other_trial_beats(studied: Studied) -> None:
    base, best = studied.outcome.trials[:2]
    points = {"trial-0000": (10, 0.3), "trial-0001": (30, 0.6), "trial-0002": (90, 0.61), "trial-0003": (95, 0.4)}
    trials = tuple(
        replace(base, unit=unit, summary=replace(base.summary, prompt_tokens=12 * tokens), estimate=estimate)
        for unit, (tokens, estimate) in points.items()
    )
    section = trade_offs(replace(studied.outcome, trials=trials), tolerance=0.02)
    assert section is not None
    table = next(block for block in section.blocks if hasattr(block, "rows"))
    assert [(row[0], row[2], row[4]) for row in table.rows] == [
        ("trial-0000", "10", ""),
        ("trial-0001", "30", "cheapest within tolerance, knee"),
        ("trial-0002", "90", "best estimate"),
    ]
    said = reports(studied, studied.outcome)[1].split("## Trade-offs")[1].split("##")[0]
    assert f"**{best.unit}** | **0.800 ± 0.040** | **40** | **12 of 12** |" in said
    assert "cheapest within tolerance, winner" in said
    assert trade_offs(replace(studied.outcome, trials=()), 0.02) is None


def test_a_front_without_a_bulge_has_no_knee(studied: Studied) -> None:
    base = studied.outcome.trials[0]
    points = {"trial-0000": (10, 0.3), "trial-0001": (100, 0.31), "trial-0002": (1000, 0.8)}
    trials = tuple(
        replace(base, unit=unit, summary=replace(base.summary, prompt_tokens=12 * tokens), estimate=estimate)
        for unit, (tokens, estimate) in points.items()
    )
    section = trade_offs(replace(studied.outcome, trials=trials), tolerance=0.02)
    assert section is not None
    assert "knee" not in str(section).lower()


def test_what_little_is_known_of_is_drawn_faint() -> None:
    svg = trade_off_chart([Mark(5, 0.5, "trial", "a", 0.1, faint=True), Mark(9, 0.6, "winner", "b")], "c", "u", "l")
    assert svg.count('class="trial faint"') == svg.count('class="error"') == 1


def test_what_is_not_known_is_not_zero(studied: Studied) -> None:
    unknown = replace(studied.outcome, spent=replace(studied.outcome.spent, usd=None))
    assert "price not known" in reports(studied, unknown)[0]
    summary = replace(studied.outcome.trials[0].summary, score=math.nan, stderr=math.nan, failures=12)
    failed = replace(studied.outcome, trials=(replace(studied.outcome.trials[0], summary=summary),))
    assert "— ± —" in reports(studied, failed)[1]


# -- docs/report.md --

DOCS = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_page_about_reports_has_every_section(tmp_path: Path) -> None:
    studied, prompt = Studied(tmp_path), Candidate({"generate": PredictorPrompt("Answer.")})
    for name in ("bare-01234567", "labeled_fewshot-89abcdef"):
        studied.run.write_json(f"candidates/{name}.json", prompt.as_json())
    shown = [section.title for section in build_page(Record(studied.outcome, studied.run, studied.dataset)).sections]
    told = re.findall(r"^## (.*)$", DOCS, re.MULTILINE)
    # The handmade study has no evidence that could be lost.
    assert [title for title in told if title not in ("Where answers are lost", "Several studies")] == shown
    assert "Where answers are lost" in told
    assert all(f"| {text} |" in DOCS for text in LOST.values())


def test_the_page_about_reports_has_commands_that_run(
    tmp_path: Path, ragwright: Ragwright, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    studied = Studied(tmp_path)
    for name in ("mine", "other"):
        run = RunDir(tmp_path / "runs" / f"{name}-0123456789ab")
        run.write_text("study.yaml", (studied.run.path / "study.yaml").read_text(encoding="utf-8"))
        for unit, evaluation in studied.evaluations.items():
            run.evaluation(unit, len(evaluation.rows), lambda start, found=evaluation: found)
        run.write_json("outcome.json", replace(studied.outcome, study=name).as_json())
    commands = [line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]
    assert [shlex.split(command)[:4] for command in commands] == [
        ["uv", "run", "ragwright", name] for name in ("report", "report", "compare")
    ]
    for command in commands:
        code, out, err = ragwright(*shlex.split(command)[3:], "--runs", tmp_path / "runs")
        assert (code, err) == (0, "") and "0.833" in out


def test_the_links_of_the_page_about_reports_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", DOCS)
    assert "verdict.md" in targets
    assert all((Path(__file__).parent.parent / "docs" / target).is_file() for target in targets)


def test_the_front_holds_what_no_other_beats_for_less() -> None:
    cheap, good, dear = (Mark(*at, "trial", "") for at in ((5.0, 0.2), (50.0, 0.4), (90.0, 0.2)))
    assert pareto_front([dear, good, cheap]) == [cheap, good]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.21, 0.29), (0.0, 2398.0), (0.5, 0.5), (0.0, 0.0), (-0.2, 0.3)]
)
def test_ticks_are_few_and_enclose_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
