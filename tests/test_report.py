from __future__ import annotations

import html as entities
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from optimize.headline import headline, score_interval
from optimize.outcome import Outcome
from optimize.report import render_terminal, write_report
from optimize.report_charts import Mark, nice_ticks, pareto_front
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
        if tag not in ("meta", "line", "rect", "circle", "path"):
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
    interval = score_interval(studied.outcome.test_winner, 12)  # type: ignore[arg-type]
    assert interval is not None
    for text in (html, markdown.replace("\\", "")):
        assert f"0.833 [{interval[0]:.3f}, {interval[1]:.3f}]" in text
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
    assert not page.seen & {"script", "img", "link", "iframe"}
    assert not re.search(r"(src|href)=|@import|url\(", html)
    assert "prefers-color-scheme:dark" in html


def test_a_study_in_progress_says_so(studied: Studied) -> None:
    _, markdown = reports(studied, studied.begun)
    assert "Not confirmed yet" in markdown
    assert "## Finalists" not in markdown
    assert "## Questions won" not in markdown
    assert "winner at work" not in markdown
    assert "best trial so far" in printed(studied.begun)
    untried = replace(studied.begun, trials=())
    assert "no trial has enough answers yet" in reports(studied, untried)[1]


def test_before_the_test_the_confirm_scores_are_compared(studied: Studied) -> None:
    _, markdown = reports(studied, studied.confirmed)
    assert "Not tested yet: on 12 confirm questions the winner scores 0.833" in markdown
    assert "| token_f1 on confirm | 0.250 ± " in markdown
    assert "opened" not in markdown
    assert "| test | — | — | — |" in markdown


def test_finalists_without_a_winner_and_a_void_test_are_told(studied: Studied) -> None:
    nobody = replace(studied.confirmed, winner=None)
    assert headline(nobody).word == "no winner"
    void = replace(studied.outcome, verdict=None)
    assert headline(void).sentence.startswith("Void: ")
    for outcome in (nobody, void):
        reports(studied, outcome)
        printed(outcome)


@pytest.mark.parametrize("verdict", ["better", "worse", "not shown better", "underpowered"])
def test_every_verdict_has_words(studied: Studied, verdict: str) -> None:
    said = headline(replace(studied.outcome, verdict=verdict))  # type: ignore[arg-type]
    assert said.word == verdict
    assert said.sentence.endswith(".")


def test_what_is_not_known_is_not_zero(studied: Studied) -> None:
    unknown = replace(studied.outcome, spent=replace(studied.outcome.spent, usd=None))
    assert "price not known" in reports(studied, unknown)[0]
    summary = replace(studied.outcome.trials[0].summary, score=math.nan, stderr=math.nan, failures=12)
    failed = replace(studied.outcome, trials=(replace(studied.outcome.trials[0], summary=summary),))
    assert "— ± —" in reports(studied, failed)[1]


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
