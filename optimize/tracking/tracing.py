"""Rows as MLflow traces, made after the fact from what a study keeps: the live run is not traced.

A trace is one question: the root CHAIN from question to answer, under it a RETRIEVER that gives the passages which the
LM was shown (so that MLflow's retrieval judges judge those), and a CHAT_MODEL. Where a reranker was at work, the
RETRIEVER holds two spans more: what was retrieved before, as a RETRIEVER of its own, which the judges pass over because
it is not at the top, and the RERANKER.

What a row does not tell is not made up. Searching takes no time here. A row holds the sums over all LM calls of a
question: where there were several, one CHAT_MODEL stands for all of them, its messages are those of the last predictor,
and a placeholder stays where an input is not known. Its output is the answer as it was read from the reply.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from optimize.data.example import Example, gold_text
from optimize.evaluation.evaluate import Row
from optimize.evaluation.outcome import Entry
from optimize.exporting.fill import fill, shown
from optimize.tracking.records import finite
from optimize.tracking.rows import lost_at, text_at
from programs.corpus import Corpus
from programs.extraction import clean
from programs.types import Span

if TYPE_CHECKING:
    from mlflow.entities import Assessment, TraceInfo
    from mlflow.entities.span import Span as MlflowSpan

SAMPLED = 3
"""Rows of an evaluation that are traced where not all of them are, beside the failures."""

AT_ONCE = 50
"""Traces whose spans are sent in one request."""

_PREVIEW = 1000

Retrieved = Callable[[str], Sequence[Span] | None]
"""Question -> what was retrieved for it before reranking, best first; None where that is not known."""


def traced(rows: Sequence[Row], whole: bool) -> list[Row]:
    """The rows of which there are traces: all, or the first few that were asked and every failure.

    More rows never take one away, so a trial that goes on keeps its traces.
    """
    return [row for number, row in enumerate(rows) if whole or number < SAMPLED or row.score is None]


@dataclass(frozen=True)
class TraceMaker:
    """Makes the traces of one evaluation.

    Attributes:
        experiment: Id of the MLflow experiment.
        run_id: The run that they belong to.
        started: When that began, in milliseconds: rows do not say when they were answered.
        key: The study's, which ids are made from: the same row has the same trace whenever it is logged.
        entry: What the rows are of.
        metric: The score's name.
        model: The LM's name.
        examples: Examples by id.
        corpus: Holds the passages.
        messages: What the LM is sent, predictor by predictor, with placeholders.
        retrieved: What was found before reranking.
        tags: Further tags.
    """

    experiment: str
    run_id: str
    started: int
    key: str
    entry: Entry
    metric: str
    model: str
    examples: Mapping[str, Example]
    corpus: Corpus
    messages: Sequence[Mapping[str, Any]] = ()
    retrieved: Retrieved = lambda question: None
    tags: Mapping[str, str] = field(default_factory=dict)

    def make(self, row: Row) -> tuple[TraceInfo, list[MlflowSpan]]:
        """The trace of a row."""
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        # Databases and protocols refuse half characters, which a model may write.
        row = replace(row, answer=row.answer and clean(row.answer), error=row.error and clean(row.error))
        example, trace = self.examples[row.example_id], self._trace_id(row)
        usage = _usage(row)
        info = TraceInfo(
            trace_id=f"tr-{trace}",
            trace_location=TraceLocation.from_experiment_id(self.experiment),
            request_time=self.started,
            execution_duration=round(1000 * row.latency_s),
            state=TraceState.ERROR if row.score is None else TraceState.OK,
            request_preview=example.question[:_PREVIEW],
            response_preview=((row.error or row.answer if row.score is None else row.answer) or "")[:_PREVIEW],
            client_request_id=row.example_id,
            trace_metadata={
                "mlflow.sourceRun": self.run_id,
                "mlflow.trace_schema.version": "3",
                "mlflow.trace.tokenUsage": json.dumps(usage),
            },
            tags={
                "mlflow.traceName": self.entry.unit,
                "ragwright.unit": self.entry.unit,
                "ragwright.phase": self.entry.phase,
                "ragwright.example": row.example_id,
                "ragwright.lost_at": lost_at(row) or "nowhere",
                **self.tags,
            },
            assessments=self._assessments(row, example, f"tr-{trace}"),
        )
        return info, list(self._spans(row, example, trace, usage))

    def _spans(self, row: Row, example: Example, trace: str, usage: Mapping[str, int]) -> Iterator[MlflowSpan]:
        begun = self.started * 1_000_000
        ended = begun + int(1e9 * row.latency_s)
        about: dict[str, Any] = {"score": row.score, "calls": row.calls, "repeats": row.repeats, "usd": row.usd}
        about |= {"context_tokens": row.context_tokens, **finite(row.measures), "feedback": clean(row.feedback) or None}
        spans = _Spans(trace, begun)
        root = spans.add("answer", "CHAIN", None, ended, {"question": example.question}, row.answer, about, row.error)
        yield root
        documents = [self._document(span, example) for span in row.spans]
        # A question that failed before it was answered left no passages: whether they were found is not known.
        if row.spans or row.error is None:
            asked: dict[str, Any] = {"query": example.question}
            settings = self.entry.config.as_params()
            yield (search := spans.add("search", "RETRIEVER", root, begun, asked, documents, settings))
            before = self.retrieved(example.question) if self.entry.config.reranker != "none" else None
            if before is not None:
                found = [self._document(span, example) for span in before]
                yield spans.add("retrieve", "RETRIEVER", search, begun, asked, found)
            if self.entry.config.reranker != "none":
                given = {**asked, **({"documents": found} if before is not None else {})}
                by = {"reranker": self.entry.config.reranker}
                yield spans.add("rerank", "RERANKER", search, begun, given, documents, by)
        if row.calls:
            asked = {"messages": self._filled([document["page_content"] for document in documents], example.question)}
            said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": row.answer}}]}
            about = {"mlflow.chat.tokenUsage": dict(usage), "mlflow.llm.model": self.model, "calls": row.calls}
            if row.usd is not None:
                about["mlflow.llm.cost"] = {"total_cost": row.usd}
            answer = said if row.answer is not None else None
            yield spans.add("generate", "CHAT_MODEL", root, ended, asked, answer, about, row.error)

    def _document(self, span: Span, example: Example) -> dict[str, Any]:
        """A passage as MLflow's judges and pages know it; `gold` says whether it touches the evidence."""
        gold = any(place.span.overlap(span) for fact in example.evidence for place in fact)
        metadata = {"doc_uri": span.doc_id, "start": span.start, "end": span.end, "gold": gold}
        name = f"{span.doc_id}#{span.start}-{span.end}"
        return {"page_content": text_at(self.corpus, span), "metadata": metadata, "id": name}

    def _filled(self, passages: list[str], question: str) -> list[dict[str, Any]]:
        """The last predictor's messages as they were sent, as far as its inputs are known."""
        if not self.messages:
            return [{"role": "user", "content": question}]
        messages = self.messages[-1]["messages"]
        contents = [str(message["content"]) for message in messages]
        known = {"question": question, "context": passages}
        prompt_format = self.entry.config.prompt_format
        texts = {
            name: shown(value, prompt_format)
            for name, value in known.items()
            if any("{{" + name + "}}" in content for content in contents)
        }
        filled = fill(contents, texts)
        return [{**message, "content": clean(text)} for message, text in zip(messages, filled, strict=True)]

    def _assessments(self, row: Row, example: Example, trace_id: str) -> list[Assessment]:
        """The score, as feedback by a program, and what should have been answered."""
        from mlflow.entities import AssessmentSource, Expectation, Feedback

        source = AssessmentSource("CODE", "ragwright")
        found: list[Assessment] = []
        if row.score is not None:
            found.append(
                Feedback(name=self.metric, value=row.score, source=source, rationale=clean(row.feedback) or None)
            )
            if where := lost_at(row):
                found.append(Feedback(name="lost_at", value=where, source=source))
        if example.answers is not None:
            found.append(Expectation(name="expected_response", value=gold_text(example), source=source))
        for one in found:
            one.trace_id = trace_id
            # Made from what they are about, so that logging them again replaces them.
            one.assessment_id = f"a-{_digits(f'{trace_id}/{one.name}', 32)}"
        return found

    def _trace_id(self, row: Row) -> str:
        return _digits(f"{self.key}/{self.entry.unit}/{row.example_id}", 32)


class _Spans:
    """Spans of one trace; MLflow's own calls would send them through the process's global exporter, in silence."""

    def __init__(self, trace: str, begun: int) -> None:
        self._trace, self._begun = trace, begun

    def add(
        self,
        name: str,
        kind: str,
        parent: MlflowSpan | None,
        ended: int,
        inputs: Any,
        outputs: Any,
        about: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> MlflowSpan:
        """A finished span; times in nanoseconds."""
        from mlflow.entities.span import Span as MlflowSpan

        attributes = {
            "mlflow.traceRequestId": f"tr-{self._trace}",
            "mlflow.spanType": kind,
            "mlflow.spanInputs": inputs,
            "mlflow.spanOutputs": outputs,
            **(about or {}),
        }
        events = []
        if error is not None:
            said = {"exception.type": error.partition(":")[0], "exception.message": error}
            events = [{"name": "exception", "time_unix_nano": ended, "attributes": said}]
        return MlflowSpan.from_dict(
            {
                "trace_id": _base64(self._trace),
                "span_id": _base64(_digits(f"{self._trace}/{name}", 16)),
                "parent_span_id": _base64(parent.span_id) if parent is not None else "",
                "name": name,
                "start_time_unix_nano": self._begun,
                "end_time_unix_nano": ended,
                "status": {"code": "STATUS_CODE_ERROR" if error else "STATUS_CODE_OK", "message": error or ""},
                "events": events,
                "attributes": {n: json.dumps(value) for n, value in attributes.items() if value is not None},
            }
        )


def log_traces(uri: str, maker: TraceMaker, rows: Sequence[Row]) -> None:
    """Write the traces of some rows, at once and in this thread, so that a failure is heard of.

    Raises:
        MlflowException: The store refuses them or cannot be reached.
        NotImplementedError: It is a server that takes no spans.
    """
    from mlflow.tracing.client import TracingClient

    if not rows:
        return
    client = TracingClient(uri)
    for start in range(0, len(rows), AT_ONCE):
        spans = []
        for row in rows[start : start + AT_ONCE]:
            info, made = maker.make(row)
            client.start_trace(info)
            spans += made
        client.log_spans(maker.experiment, spans)


def _usage(row: Row) -> dict[str, int]:
    read, written = row.prompt_tokens, row.completion_tokens
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def _digits(text: str, count: int) -> str:
    """So many hex digits that name a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:count]


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
