from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.evaluation.outcome import Entry
from optimize.tracking.retracing import Retracing
from optimize.tracking.store import connect
from optimize.tracking.tracing import SAMPLED, TraceMaker, log_traces, traced
from optimize.tracking.tracker import Tracker, default_uri
from programs.config import PipelineConfig
from programs.prompt_format import FORMATS, render
from programs.search import open_search
from programs.signatures import Answer
from tests.openai_server import OpenAIServer
from tests.outcomes import Studied
from tests.test_tracking import MESSAGES, STUDY, entries

RERANKED = PipelineConfig(
    chunk_size=64, embedder="none", retriever="sparse", retrieve_k=5, reranker="lexical", top_k=2
).canonical()


@pytest.fixture
def studied(tmp_path: Path, migrated: Path) -> Studied:
    studied = Studied(tmp_path)
    shutil.copy(migrated, tmp_path / "runs" / "mlflow.db")
    return studied


def maker(studied: Studied, entry: Entry, **changes: Any) -> TraceMaker:
    examples = {example.id: example for example in studied.dataset.examples}
    given = TraceMaker(
        "0", "run", 1_700_000_000_000, "towers-0", entry, "token_f1", "openai/x", examples, studied.dataset.corpus
    )
    return replace(given, **{"messages": MESSAGES, **changes})


def by_name(spans: list[Any]) -> dict[str, Any]:
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def track(studied: Studied, told: list[Entry] | None = None, warned: list[str] | None = None) -> Tracker:
    o = studied.outcome
    warn = (warned if warned is not None else []).append
    tracker = Tracker(
        default_uri(studied.run.path.parent), studied.dataset, o.study, o.fingerprint, studied.run.path, warn
    )
    tracker.open(STUDY)
    for entry in entries(studied) if told is None else told:
        tracker.entry(entry, studied.evaluations[entry.unit], lambda: MESSAGES)
    tracker.drain(30)
    return tracker


def traces(studied: Studied) -> dict[str, list[Any]]:
    """Unit -> its traces, by the run that they are linked to."""
    client = connect(default_uri(studied.run.path.parent))
    experiment = client.get_experiment_by_name("handmade")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    found = {
        run.data.tags["ragwright.unit"]: list(
            client.search_traces(locations=[experiment.experiment_id], run_id=run.info.run_id, max_results=100)
        )
        for run in runs
    }
    every = client.search_traces(locations=[experiment.experiment_id], max_results=500)
    assert sum(map(len, found.values())) == len(every)
    return found


def test_a_trace_is_a_chain_of_retriever_and_model(studied: Studied) -> None:
    entry = studied.outcome.baseline
    row = studied.evaluations["baseline"].rows[1]
    info, spans = maker(studied, entry).make(row)
    found = by_name(spans)
    root = found["answer"]
    assert [(span.name, span.span_type) for span in spans] == [
        ("answer", "CHAIN"),
        ("search", "RETRIEVER"),
        ("generate", "CHAT_MODEL"),
    ]
    assert root.parent_id is None and {span.parent_id for span in spans[1:]} == {root.span_id}
    assert {span.trace_id for span in spans} == {info.trace_id}
    assert root.inputs == {"question": "When was the tower validation 1 built?"} and root.outputs == "1801"
    [document] = found["search"].outputs
    assert document == {
        "page_content": "The tower validation 1 was built in 1801",
        "metadata": {"doc_uri": "validation-1.md", "start": 0, "end": 40, "gold": True},
        "id": "validation-1.md#0-40",
    }
    model = found["generate"]
    usage = {"input_tokens": 40, "output_tokens": 3, "total_tokens": 43}
    assert model.attributes["mlflow.chat.tokenUsage"] == usage
    assert json.loads(info.trace_metadata["mlflow.trace.tokenUsage"]) == usage
    assert (model.end_time_ns - model.start_time_ns, info.execution_duration) == (250_000_000, 250)
    assert model.inputs["messages"][0]["content"].startswith("When was the tower validation 1 built? \ufffd")
    assert model.outputs["choices"][0]["message"]["content"] == "1801"
    assert info.trace_metadata["mlflow.sourceRun"] == "run"
    assert info.tags["ragwright.phase"] == "baseline" and info.state == "OK"


def test_a_failure_is_an_error_with_what_is_known_of_it(studied: Studied) -> None:
    row = replace(
        studied.evaluations["baseline"].rows[0],
        score=None,
        answer=None,
        spans=(),
        error="LMTimeoutError: no \ud800 reply",
    )
    info, spans = maker(studied, studied.outcome.baseline).make(row)
    found = by_name(spans)
    assert info.state == "ERROR" and info.response_preview == "LMTimeoutError: no \ufffd reply"
    assert set(found) == {"answer", "generate"}
    assert {span.status.status_code for span in spans} == {"ERROR"}
    [event] = found["generate"].events
    assert event.attributes["exception.type"] == "LMTimeoutError"
    assert [one.name for one in info.assessments] == ["expected_response"]


def test_the_score_and_the_expected_answer_are_assessments(studied: Studied) -> None:
    rows = studied.evaluations["baseline"].rows
    wrong = replace(rows[-1], measures={"gold_in_context": 1.0}, feedback="expected 1811")
    info, _ = maker(studied, studied.outcome.baseline).make(wrong)
    score, lost, expected = info.assessments
    assert (score.name, score.value, score.rationale) == ("token_f1", 0.0, "expected 1811")
    assert (lost.name, lost.value) == ("lost_at", "generation")
    assert (expected.name, expected.value) == ("expected_response", "1811")


def test_rows_that_stay_unknown_are_not_made_up(studied: Studied) -> None:
    example = replace(studied.dataset.validation[0], answers=None)
    row = replace(studied.evaluations["baseline"].rows[0], calls=0, usd=None)
    info, spans = maker(studied, studied.outcome.baseline, examples={example.id: example}, messages=()).make(row)
    assert set(by_name(spans)) == {"answer", "search"}
    assert [one.name for one in info.assessments] == ["token_f1"]


@pytest.mark.parametrize("prompt_format", list(FORMATS))
def test_the_messages_are_those_that_were_sent(studied: Studied, prompt_format: str) -> None:
    signature = dspy.Predict(Answer).signature
    demos = [dspy.Example(context=["{{context}} of {{question}}"], question="A {{question}}?", answer="yes")]
    adapter = FORMATS[prompt_format]()
    messages = [{"predictor": "generate", "messages": render(adapter, signature, demos)}]
    entry = replace(
        studied.outcome.baseline, config=replace(studied.outcome.baseline.config, prompt_format=prompt_format)
    )
    row = studied.evaluations["baseline"].rows[0]
    _, spans = maker(studied, entry, messages=messages).make(row)
    inputs = {
        "context": ["The tower validation 0 was built in 1800"],
        "question": "When was the tower validation 0 built?",
    }
    assert by_name(spans)["generate"].inputs["messages"] == render(adapter, signature, demos, inputs)


def test_what_was_retrieved_stands_before_the_reranker(studied: Studied) -> None:
    from mlflow.entities import Trace, TraceData
    from mlflow.genai.utils.trace_utils import extract_retrieval_context_from_trace

    runs, corpus, question = studied.run.path.parent, studied.dataset.corpus, "When was the tower validation 3 built?"
    retracing = Retracing(runs, corpus, "rag")
    assert retracing.retrieved(RERANKED, question) is None, "there is no index, and none is built for this"
    shown = [passage.span for passage in open_search(runs, corpus, RERANKED)(question)]
    before = retracing.retrieved(RERANKED, question)
    assert before is not None and len(before) == 5 and set(shown) < set(before)
    assert Retracing(runs, corpus, "rewrite").retrieved(RERANKED, question) is None
    row = replace(studied.evaluations["baseline"].rows[3], spans=tuple(shown))
    entry = replace(studied.outcome.baseline, config=RERANKED)
    info, spans = maker(studied, entry, retrieved=lambda asked: retracing.retrieved(RERANKED, asked)).make(row)
    found = by_name(spans)
    assert [found[name].span_type for name in ("search", "retrieve", "rerank")] == [
        "RETRIEVER",
        "RETRIEVER",
        "RERANKER",
    ]
    assert {found[name].parent_id for name in ("retrieve", "rerank")} == {found["search"].span_id}
    assert len(found["retrieve"].outputs) == len(found["rerank"].inputs["documents"]) == 5
    assert found["rerank"].outputs == found["search"].outputs
    context = extract_retrieval_context_from_trace(Trace(info, TraceData(spans)))
    assert list(context) == [found["search"].span_id], "judges see what the LM was shown, once"
    assert len(context[found["search"].span_id]) == 2
    _, alone = maker(studied, entry).make(row)
    assert "documents" not in by_name(alone)["rerank"].inputs and "retrieve" not in by_name(alone)


def test_baseline_test_and_failures_are_traced_others_sampled(studied: Studied) -> None:
    trial = studied.outcome.trials[0]
    rows = list(studied.evaluations[trial.unit].rows)
    rows[7] = replace(rows[7], score=None, answer=None, error="LMError: gone")
    studied.evaluations[trial.unit] = Evaluation(tuple(rows))
    tracker = track(studied)
    before = {unit: len(found) for unit, found in traces(studied).items()}
    assert before == {
        **{"study": 0, "baseline": 12, "trial-0000": SAMPLED + 1, "trial-0001": SAMPLED, "trial-0002": SAMPLED},
        **{"confirm-base": 12, "confirm-new": SAMPLED, "test-base": 12, "test-new": 12},
    }
    states = [str(trace.info.state.value) for trace in traces(studied)["trial-0000"]]
    assert sorted(states) == ["ERROR", "OK", "OK", "OK"]
    tracker.close(studied.outcome, [])
    after = {unit: len(found) for unit, found in traces(studied).items()}
    assert after == {**before, "trial-0001": 12, "confirm-new": 12}


def test_logging_again_changes_nothing(studied: Studied) -> None:
    def count() -> list[int]:
        with sqlite3.connect(studied.run.path.parent / "mlflow.db") as database:
            tables = ("trace_info", "spans", "assessments", "trace_tags", "trace_request_metadata")
            return [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    told = entries(studied)[:2]
    track(studied, told)
    before = count()
    assert before[0] == 15 and before[1] == 45
    client = connect(default_uri(studied.run.path.parent))
    for run in client.search_runs([client.get_experiment_by_name("handmade").experiment_id]):
        # As a process leaves it that was killed after the traces and before it could say so.
        client.delete_tag(run.info.run_id, "ragwright.logged") if "ragwright.logged" in run.data.tags else None
        client.delete_tag(run.info.run_id, "ragwright.traced") if "ragwright.traced" in run.data.tags else None
    warned: list[str] = []
    track(studied, told, warned)
    assert (warned, count()) == ([], before)


def test_a_trial_that_goes_on_keeps_its_traces() -> None:
    rows = [Row(str(number), None if number in (1, 5) else 1.0, "x") for number in range(8)]
    assert [row.example_id for row in traced(rows[:4], False)] == ["0", "1", "2"]
    assert [row.example_id for row in traced(rows, False)] == ["0", "1", "2", "5"]
    assert traced(rows, True) == rows


def test_a_server_without_traces_gets_the_rest(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise NotImplementedError("log_spans is not supported")

    monkeypatch.setattr("optimize.tracking.writing.log_traces", refuse)
    warned: list[str] = []
    tracker = track(studied, warned=warned)
    tracker.close(studied.outcome, [])
    assert warned == ["this MLflow server takes no traces; everything else is logged."]
    assert all(found == [] for found in traces(studied).values())


def test_mlflows_judges_read_them(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.genai.scorers import RetrievalGroundedness, RetrievalRelevance

    track(studied, entries(studied)[:1])
    trace = next(t for t in traces(studied)["baseline"] if t.info.tags["ragwright.example"] == "validation-1")
    verdict = json.dumps({"result": "yes", "rationale": "it is there"})
    with OpenAIServer(answer=lambda body: verdict) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        [grounded] = RetrievalGroundedness(model="openai:/judge")(trace=trace)
        relevant = RetrievalRelevance(model="openai:/judge")(trace=trace)
    assert grounded.value == "yes" and relevant[0].value is not None
    search = next(span for span in trace.data.spans if span.name == "search")
    assert grounded.span_id == search.span_id
    assert all("The tower validation 1 was built in 1801" in request.prompt for request in server.requests)


def test_nothing_to_trace_asks_nothing(studied: Studied) -> None:
    log_traces("nonsense://x", maker(studied, studied.outcome.baseline), [])


def test_a_question_that_cannot_be_answered(studied: Studied) -> None:
    example = Example("validation-0", "Who?", ())
    info, _ = maker(studied, studied.outcome.baseline, examples={example.id: example}).make(
        studied.evaluations["baseline"].rows[0]
    )
    assert info.assessments[-1].value == "(the corpus cannot answer)"
