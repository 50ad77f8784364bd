"""MLflow's own pages, as `ragwright ui` opens them at a study that really ran."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from optimize.exporting.registry import registered_name
from optimize.tracking.store import PHASE, UNIT, connect
from optimize.tracking.tracker import default_uri
from tests.browser.visits import RealStudy, Visit, Visiting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

WIDE = {"width": 1700, "height": 1000}
ESTIMATE = "search.token_f1_estimate"
PATIENCE = 60_000
"""Milliseconds that MLflow's pages may take to appear on a busy machine."""


@pytest.fixture(scope="module")
def client(study: RealStudy) -> Any:
    return connect(default_uri(study.runs))


@pytest.fixture(scope="module")
def logged(client: Any) -> dict[str, Any]:
    """Unit -> run, of the study."""
    [experiment] = [e for e in client.search_experiments() if e.name == "villages"]
    return {run.data.tags[UNIT]: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}


@pytest.fixture
def at(visit: Visiting, mlflow_pages: dict[str, str]) -> Any:
    """Open a page by its name in what `ragwright ui` printed, or by its address behind the server's."""

    def opened(place: str) -> Any:
        root = mlflow_pages["the study"].split("/#/")[0]
        return visit(mlflow_pages.get(place, f"{root}/#{place}"), **WIDE)

    return opened


def stayed_here(visited: Visit) -> bool:
    return all(request.startswith(("http://127.0.0.1:", "data:", "blob:")) for request in visited.requests)


def test_the_runs_table_is_sorted_by_value(at: Any, logged: dict[str, Any]) -> None:
    trials = [run for run in logged.values() if run.data.tags[PHASE] == "search"]
    assert len({run.data.metrics[ESTIMATE] for run in trials}) > 3
    best_first = [run.info.run_name for run in sorted(trials, key=lambda run: -run.data.metrics[ESTIMATE])]
    with at("trials, best first") as visited:
        page = visited.page
        page.get_by_role("link", name=best_first[-1], exact=True).wait_for(timeout=PATIENCE)
        visited.shoot("mlflow-runs")
        names = page.eval_on_selector_all("a[href*='/runs/']", "links => links.map(link => link.textContent)")
        assert [name for name in names if name.startswith("trial-")] == best_first
        # The columns that matter are there without being asked for.
        page.get_by_text("prompt_tokens_a_question").first.wait_for(timeout=PATIENCE)
        assert stayed_here(visited)


def test_all_trials_are_compared_as_parallel_coordinates(at: Any, logged: dict[str, Any]) -> None:
    trials = sum(run.data.tags[PHASE] == "search" for run in logged.values())
    with at("trials compared") as visited:
        page = visited.page
        page.get_by_text(f"Comparing {trials} Runs from 1 Experiment").wait_for(timeout=PATIENCE)
        page.locator("g.parcoords").first.wait_for(timeout=PATIENCE)
        page.wait_for_timeout(1000)
        visited.shoot("mlflow-parallel-coordinates")
        axes = page.eval_on_selector_all("g.parcoords .axis-title", "titles => titles.map(title => title.textContent)")
        assert "candidate" in axes and any(axis.startswith("search.token_f1") for axis in axes)
        box = page.locator(".js-plotly-plot canvas").first.bounding_box()
        assert box["width"] > 300 and box["height"] > 200


def test_the_charts_are_of_the_study(at: Any, logged: dict[str, Any]) -> None:
    trials = {run.info.run_name: run for run in logged.values() if run.data.tags[PHASE] == "search"}
    varied = {
        name for name in ("chunk_size", "candidate", "top_k") if len({r.data.params[name] for r in trials.values()}) > 1
    }
    with at("trials as charts") as visited:
        page = visited.page
        page.get_by_text("The study", exact=True).first.wait_for(timeout=PATIENCE)
        page.get_by_text("Parallel Coordinates").first.wait_for(timeout=PATIENCE)
        page.locator(".parcoords").first.wait_for(timeout=PATIENCE)
        page.locator(".js-plotly-plot").first.wait_for(timeout=PATIENCE)
        page.wait_for_timeout(1000)
        visited.shoot("mlflow-charts")
        said = page.locator("body").inner_text()
        assert f"prompt_tokens_a_question vs. {ESTIMATE}" in said
        assert all(name in page.content() for name in (*varied, *trials))


def test_a_trace_is_a_tree_with_the_retrieved_documents(at: Any, client: Any, logged: dict[str, Any]) -> None:
    tested = next(run for unit, run in logged.items() if unit.startswith("test-"))
    experiment = tested.info.experiment_id
    found = client.search_traces(locations=[experiment], run_id=tested.info.run_id, max_results=100)
    trace = next(one for one in found if one.search_spans(span_type="RETRIEVER")[0].outputs)
    document = trace.search_spans(span_type="RETRIEVER")[0].outputs[0]
    own = trace.info.trace_id
    with at(f"/experiments/{experiment}/traces?selectedEvaluationId={own}&traceId={own}") as visited:
        page = visited.page
        for name in ("answer", "search", "generate"):
            page.get_by_text(name, exact=True).first.wait_for(timeout=PATIENCE)
        page.get_by_text("search", exact=True).first.click()
        page.get_by_text(document["metadata"]["doc_uri"]).first.wait_for(timeout=PATIENCE)
        visited.shoot("mlflow-trace")
        shown = page.locator("body").inner_text()
        # As Markdown, so headings have lost their signs.
        assert max(document["page_content"].splitlines(), key=len).strip() in " ".join(shown.split())
        assert stayed_here(visited)


@pytest.mark.parametrize("page", ["prompts", "models"])
def test_prompt_and_model_have_their_aliases(at: Any, client: Any, study: RealStudy, page: str) -> None:
    import json

    verdict = json.loads((study.folder / "outcome.json").read_text(encoding="utf-8"))["verdict"]
    name = registered_name("villages", "villages")
    if page == "prompts":
        [name] = [prompt.name for prompt in client.search_prompts() if prompt.name.startswith(f"{name}.")]
    with at(f"/{page}/{name}") as visited:
        visited.page.get_by_text("challenger").first.wait_for(timeout=PATIENCE)
        visited.shoot(f"mlflow-{page}")
        assert visited.page.get_by_text("Version 1").count() >= 1
        assert (visited.page.get_by_text("champion").count() > 0) == (verdict == "better")


def test_the_study_is_described_in_words(at: Any) -> None:
    with at("the study") as visited:
        visited.page.get_by_text("villages-").first.wait_for(timeout=PATIENCE)
        visited.page.get_by_text("the winner scores").first.wait_for(timeout=PATIENCE)
        visited.shoot("mlflow-study")


def test_it_takes_few_processes_on_this_machine_only(mlflow_pages: dict[str, str]) -> None:
    port = mlflow_pages["the study"].split("/#/")[0].rpartition(":")[2]
    assert mlflow_pages["the study"].startswith("http://127.0.0.1:")
    serving = [line for line in _commands() if f"--port {port}" in line and "mlflow" in line]
    assert 1 <= len(serving) <= 3
    # 0.0.0.0 would be 00000000 here, and 127.0.0.1 is 0100007F.
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert [place for place in listening if place.endswith(f":{int(port):04X}")] == [f"0100007F:{int(port):04X}"]


def _commands() -> list[str]:
    found = []
    for process in os.listdir("/proc"):
        file = Path("/proc") / process / "cmdline"
        if process.isdigit() and file.is_file():
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
