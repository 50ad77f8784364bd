"""What happens to one question on its way to the answer, stage by stage, for a person to read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dspy.utils.callback import BaseCallback

from optimize.serving.answering import one_line, sources_of
from programs.extraction import clean
from programs.metering import CallRecord, collect_calls
from programs.ranking import Ranking
from programs.search import Search, cut_off
from programs.types import Passage, Span

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram


@dataclass(frozen=True, slots=True)
class Ranked:
    """A chunk's place in a list.

    Attributes:
        rank: From 1.
        score: Of this stage; comparable within its list only.
        span: Where the chunk lies.
        text: What it says.
        before: Its rank in the stage before; None in the first.
        fate: `kept`, or the setting that dropped it: `cutoff` or `top_k`.
    """

    rank: int
    score: float
    span: Span
    text: str
    before: int | None = None
    fate: str = "kept"


@dataclass(frozen=True, slots=True)
class SearchStage:
    """One search.

    Attributes:
        query: What was searched for.
        retrieved: All that the retriever found.
        reranked: The same in the reranker's order.
        passages: What the search returned, widened where the configuration says so.
        seconds: It took.
    """

    query: str
    retrieved: tuple[Ranked, ...]
    reranked: tuple[Ranked, ...]
    passages: tuple[Passage, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        lists = {"retrieved": self.retrieved, "reranked": self.reranked}
        return {
            "stage": "search",
            "query": self.query,
            **{name: [asdict(one) for one in ranked] for name, ranked in lists.items()},
            "passages": sources_of(self.passages),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class LMStage:
    """One call of a language model.

    Attributes:
        messages: What it was sent, as rendered.
        outputs: What it said, before the prompt format read it.
        record: Tokens, time and price; None where the call never got so far.
        error: What went wrong, on one line, or None.
    """

    messages: tuple[Mapping[str, Any], ...]
    outputs: tuple[str, ...]
    record: CallRecord | None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        call = asdict(self.record) if self.record else None
        said = {"messages": list(self.messages), "outputs": list(self.outputs), "call": call}
        return {"stage": "lm", **said, "error": self.error}


@dataclass(frozen=True, slots=True)
class Trace:
    """A question's way.

    Attributes:
        question: As asked.
        answer: May be empty.
        passages: What the LM was shown, best first.
        stages: In the order in which they ended.
        seconds: All of it took.
        error: Why there is no answer, on one line, or None.
    """

    question: str
    answer: str
    passages: tuple[Passage, ...]
    stages: tuple[SearchStage | LMStage, ...]
    seconds: float
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        stages = [stage.as_json() for stage in self.stages]
        head = {"question": self.question, "answer": self.answer, "sources": sources_of(self.passages)}
        return {**head, "stages": stages, "seconds": self.seconds, "error": self.error}


def trace(exported: ExportedProgram, question: str) -> Trace:
    """Answer a question and keep what every stage made of it, also where one of them fails.

    Searches of a program of one's own are seen where it keeps its search under the name `search`.
    """
    import dspy

    begun = time.perf_counter()
    stages: list[SearchStage | LMStage] = []
    answer, error = "", None
    passages: tuple[Passage, ...] = ()
    with collect_calls() as calls, _watched(exported.program, stages):
        listener = _Listener(stages, calls)
        with dspy.context(callbacks=[*(dspy.settings.get("callbacks") or []), listener]):
            try:
                answer, passages = exported.ask(question)
            except Exception as problem:  # noqa: BLE001  # whatever it is, the stages before it tell more
                error = one_line(problem)
    return Trace(question, answer, passages, tuple(stages), time.perf_counter() - begun, error)


@contextmanager
def _watched(program: Any, stages: list[SearchStage | LMStage]) -> Iterator[None]:
    """The program with a search that tells what it does, while the block lasts."""
    search = getattr(program, "search", None)
    if not isinstance(search, Search):
        yield
        return
    program.search = _Watched(search, stages)
    try:
        yield
    finally:
        program.search = search


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    """A search that keeps its stages: the same steps as `Search`, one by one."""

    search: Search
    stages: list[SearchStage | LMStage] = field(repr=False)

    def __call__(self, question: str) -> tuple[Passage, ...]:
        search, config = self.search, self.search.config
        begun, query = time.perf_counter(), clean(question)
        [retrieved] = search.retriever.retrieve([query], config.retrieve_k)
        # All of it, although `Search` asks for no more than it keeps: the first of the ranking are the same.
        [reranked] = search.reranker.rerank([query], [retrieved], max(1, config.retrieve_k))
        passages = search.expander.passages(search.keep([reranked])[0])
        stage = SearchStage(
            query,
            self._ranked(retrieved),
            self._reranked(retrieved, reranked),
            passages,
            time.perf_counter() - begun,
        )
        self.stages.append(stage)
        return passages

    def _ranked(self, ranking: Ranking) -> tuple[Ranked, ...]:
        chunks = self.search.index.chunks
        pairs = zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True)
        return tuple(
            Ranked(rank, score, chunks[at].span, chunks[at].text) for rank, (at, score) in enumerate(pairs, start=1)
        )

    def _reranked(self, retrieved: Ranking, reranked: Ranking) -> tuple[Ranked, ...]:
        chunks, config = self.search.index.chunks, self.search.config
        before = {at: rank for rank, at in enumerate(retrieved.positions.tolist(), start=1)}
        above = len(cut_off(reranked, config.cutoff))
        pairs = zip(reranked.positions.tolist(), reranked.scores.tolist(), strict=True)
        ranked = []
        for rank, (at, score) in enumerate(pairs, start=1):
            fate = "cutoff" if rank > above else "top_k" if rank > config.top_k else "kept"
            ranked.append(Ranked(rank, score, chunks[at].span, chunks[at].text, before[at], fate))
        return tuple(ranked)


class _Listener(BaseCallback):
    """Keeps what LMs are sent and say. Of a rag there is one call at a time, so the newest record is this call's."""

    def __init__(self, stages: list[SearchStage | LMStage], calls: Sequence[CallRecord]) -> None:
        self._stages, self._calls = stages, calls
        self._sent: dict[str, tuple[int, tuple[Mapping[str, Any], ...]]] = {}

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember the messages."""
        prompt = inputs.get("prompt")
        messages = inputs.get("messages") or ([{"role": "user", "content": prompt}] if prompt else [])
        self._sent[call_id] = (len(self._calls), tuple(messages))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Keep the call."""
        count, messages = self._sent.pop(call_id, (len(self._calls), ()))
        record = self._calls[-1] if len(self._calls) > count else None
        said = tuple(_text(output) for output in outputs or ())
        error = one_line(exception) if exception is not None else None
        self._stages.append(LMStage(messages, said, record, error))


def _text(output: Any) -> str:
    return str(output.get("text") or "") if isinstance(output, dict) else str(output or "")
