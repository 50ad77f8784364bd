from __future__ import annotations

import json
import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs import api_reranking, embedding, late_interaction
from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.cross_encoding import PairReranker
from programs.errors import EndpointError, MissingExtraError, RagwrightError
from programs.index import Index, open_index
from programs.listwise import ListwiseReranker, read_order
from programs.ranking import Ranking
from programs.reranking import (
    MODELS,
    NEEDS_LM,
    RERANKERS,
    MMRReranker,
    Reranker,
    check_reranker,
    open_reranker,
    reranker_identity,
)
from programs.types import Document
from tests.openai_server import OpenAIServer
from tests.tiny_models import write_cross_encoder, write_dense_model, write_late_interaction_model

KEY = "sk-very-secret"
# Texts with vectors that can be reckoned with: near, its twin, one as near from another side, and one opposite.
VECTORS = {
    "The harbour was built in 1871.": [0.8, 0.6],
    "In 1871 the harbour was built.": [0.8, 0.6],
    "A crane unloads the ships.": [0.8, -0.6],
    "Bread is baked before dawn.": [-1.0, 0.0],
}
# For the conformance suite: two texts that occur twice, one without a word, one that no model reads well.
TEXTS = [*VECTORS, "A crane unloads the ships.", "港の鶴 — naïve 🦛 ½", "…", "Bread is baked before dawn."]
QUESTION = "When was the crane built?"
QUESTIONS = [QUESTION, "", "the of and", " \n", "鶴は何ですか 🦛", "bread ships 1871 [2] [9]", "naïve½"]


def vectors_by_hand(texts: list[str]) -> list[list[float]]:
    return [VECTORS.get(text, [1.0, 0.0]) for text in texts]


@pytest.fixture(scope="module")
def open_texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Index]]:
    """Opens an index of one chunk for each text, in their order, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setitem(embedding.EMBEDDERS, "by-hand", lambda: vectors_by_hand)

        def opened(texts: list[str], **changes: Any) -> Index:
            corpus = Corpus.from_documents(Document(f"{at:02}", text, "A port") for at, text in enumerate(texts))
            settings = {"chunk_size": 64, "embedder": "by-hand"} | changes
            index = open_index(tmp_path_factory.mktemp("runs"), corpus, PipelineConfig(**settings))
            stack.callback(index.close)
            return index

        yield opened


@pytest.fixture(scope="module")
def index(open_texts: Callable[..., Index]) -> Index:
    """Read by tests that do not count what is scored: its cache of scores fills."""
    return open_texts(list(VECTORS))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_cross_encoder(folder / "cross")
    write_late_interaction_model(folder / "late")
    return folder


def ranked(order: str) -> Ranking:
    """The chunks of these numbers, with falling scores."""
    return Ranking(
        np.array([int(digit) for digit in order], dtype=np.intp), np.linspace(1, 0.5, len(order), dtype="f4")
    )


def order(ranking: Ranking) -> str:
    return "".join(map(str, ranking.positions.tolist()))


def rerank_one(reranker: Reranker, given: str, k: int = 10, question: str = QUESTION) -> Ranking:
    [found] = reranker.rerank([question], [ranked(given)], k)
    return found


# What a server that reranks needs to say


@dataclass
class RerankServer:
    """Answers on 127.0.0.1 in the protocols of Cohere, Jina, Voyage, vLLM and Infinity while the `with` block lasts.

    A passage's score is the number of characters that it shares with the question, of a hundred. Results come best
    first, as everywhere.

    Attributes:
        statuses: Of the next answers, 200 once they are used up.
        change: What is done to an answer before it is sent.
        delay_s: Seconds before each answer that is no error.
        requests: Path, body and key of each request.
        most_at_once: The largest number of requests that were open at the same time.
    """

    statuses: list[int] = field(default_factory=list)
    change: Callable[[dict[str, Any]], Any] = lambda content: content
    delay_s: float = 0.0
    requests: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    most_at_once: int = 0

    def __enter__(self) -> RerankServer:
        server, lock = self, threading.Lock()
        self._open = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server._open += 1
                    server.most_at_once = max(server.most_at_once, server._open)
                    server.requests.append((self.path, body, str(self.headers["Authorization"])))
                    status = server.statuses.pop(0) if server.statuses else 200
                time.sleep(server.delay_s if status == 200 else 0)
                content = json.dumps(server._content(self.path, body, status)).encode()
                with lock:
                    server._open -= 1
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What was asked to be scored, so far."""
        return [(body["query"], text) for _, body, _ in self.requests for text in body["documents"]]

    def _content(self, path: str, body: dict[str, Any], status: int) -> Any:
        if status != 200:
            return {"message": f"Incorrect API key provided: {KEY}"}
        scores = [len(set(body["query"]) & set(text)) / 100 for text in body["documents"]]
        results = [{"index": place, "relevance_score": score} for place, score in enumerate(scores)]
        results.sort(key=lambda result: -result["relevance_score"])
        # Voyage says `data` where the others say `results`.
        content = {"id": "x", "model": body["model"], "results": results, "data": results}
        return self.change(content | {"usage": {"total_tokens": 1}, "meta": {"billed_units": {"search_units": 1}}})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RerankServer]:
    monkeypatch.setattr(api_reranking, "_PAUSES_S", (0.0, 0.0))
    with RerankServer() as server:
        for provider in ("COHERE", "JINA_AI", "VOYAGE", "INFINITY", "HOSTED_VLLM"):
            monkeypatch.setenv(f"{provider}_API_BASE", server.url)
            monkeypatch.setenv(f"{provider}_API_KEY", KEY)
        yield server


def write_sentence_transformers(folder: Path) -> None:
    """A package of that name whose cross-encoder counts the words that question and passage share."""
    code = """
        import numpy as np

        class CrossEncoder:
            def __init__(self, where):
                if "nowhere" in where:
                    raise OSError("no such model\\nsecond line")
                self.num_labels = 3 if "classes" in where else 1

            def predict(self, pairs, batch_size, show_progress_bar):
                shared = [len(set(question.split()) & set(text.split())) for question, text in pairs]
                return np.array(shared, dtype=np.float32) / (1 if "nan" not in pairs[0][0] else 0)
    """
    (folder / "sentence_transformers").mkdir(parents=True)
    (folder / "sentence_transformers" / "__init__.py").write_text(textwrap.dedent(code))
    metadata = folder / "sentence_transformers-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: sentence-transformers\nVersion: 9.9\n")


@contextmanager
def installed_sentence_transformers(folder: Path) -> Iterator[None]:
    write_sentence_transformers(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "sentence_transformers", raising=False)
        patch.syspath_prepend(folder)
        yield
        sys.modules.pop("sentence_transformers", None)


@pytest.fixture
def sentence_transformers(tmp_path: Path) -> Iterator[None]:
    with installed_sentence_transformers(tmp_path / "site"):
        yield


# The conformance suite


@dataclass(frozen=True)
class Opened:
    """A reranker in what it needs to work."""

    reranker: Reranker
    index: Index


KINDS = [*RERANKERS, *MODELS, "api"]


@pytest.fixture(scope="module", params=KINDS)
def opened(
    request: pytest.FixtureRequest,
    open_texts: Callable[..., Index],
    models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Opened]:
    names = {
        "fastembed": f"fastembed:{models / 'cross'}",
        "colbert": f"colbert:{models / 'late'}",
        "sentence-transformers": "sentence-transformers:any/model",
        "api": "infinity/any",
    }
    index = open_texts(TEXTS)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if request.param == "sentence-transformers":
            stack.enter_context(installed_sentence_transformers(tmp_path_factory.mktemp("site")))
        if request.param == "api":
            patch.setenv("INFINITY_API_BASE", stack.enter_context(RerankServer()).url)
        if request.param == "llm":
            lm = stack.enter_context(OpenAIServer(answer=lambda body: "[[ ## order ## ]]\n3, 1, 3, 99"))
            stack.enter_context(dspy.context(lm=dspy.LM("openai/x", api_base=lm.url, api_key="x", cache=False)))
        yield Opened(open_reranker(names.get(request.param, request.param), index), index)


RANKINGS = st.lists(st.integers(0, len(TEXTS) - 1), unique=True, max_size=len(TEXTS))


@settings(derandomize=True, deadline=None, max_examples=12)
@given(rankings=st.lists(RANKINGS, max_size=4), first=st.integers(0, len(QUESTIONS) - 1), k=st.integers(1, 9))
def test_every_reranker_keeps_the_contract(opened: Opened, rankings: list[list[int]], first: int, k: int) -> None:
    given = [ranked("".join(map(str, positions))) for positions in rankings]
    questions = [QUESTIONS[(first + at) % len(QUESTIONS)] for at in range(len(given))]
    rerank = opened.reranker.rerank
    found = rerank(questions, given, k)
    assert len(found) == len(given)
    for question, before, after in zip(questions, given, found, strict=True):
        positions, scores = after.positions.tolist(), after.scores.tolist()
        assert len(positions) == len(scores) == min(k, len(before))
        assert len(set(positions)) == len(positions) and set(positions) <= set(before.positions.tolist())
        assert scores == sorted(scores, reverse=True) and after.scores.dtype == np.float32
        [again] = rerank([question], [before], k)
        assert order(again) == order(after) and again.scores == pytest.approx(after.scores, abs=1e-5)
        [all_of_it] = rerank([question], [before], 20)
        assert order(all_of_it.first(k)) == order(after)
        assert_ties_keep_the_order_of(before, all_of_it)


def assert_ties_keep_the_order_of(before: Ranking, after: Ranking) -> None:
    places = {position: place for place, position in enumerate(before.positions.tolist())}
    steps = zip(after.positions.tolist(), after.positions.tolist()[1:], np.diff(after.scores).tolist(), strict=False)
    assert all(places[one] < places[next_one] for one, next_one, difference in steps if difference == 0)


@pytest.mark.parametrize("before", ["20416375", "70432165"])
def test_every_reranker_keeps_the_order_of_equal_texts(opened: Opened, before: str) -> None:
    if isinstance(opened.reranker, ListwiseReranker):
        pytest.skip("a language model has its own mind about equal texts")
    after = order(rerank_one(opened.reranker, before))
    for one, other in ("24", "37"):
        assert (before.index(one) < before.index(other)) == (after.index(one) < after.index(other))


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_every_reranker_knows_the_blank_question(opened: Opened, question: str) -> None:
    found = rerank_one(opened.reranker, "5273", question=question)
    # Nothing is relevant, but to mmr a passage can still be new.
    assert order(found) == "5273" or (isinstance(opened.reranker, MMRReranker) and len(found) == 4)


def test_every_reranker_works_for_nothing(opened: Opened) -> None:
    assert opened.reranker.rerank([], [], 3) == []
    for found in opened.reranker.rerank([QUESTION, QUESTION], [Ranking.empty(), Ranking.empty()], 3):
        assert len(found) == 0


def test_every_reranker_serves_many_threads(opened: Opened) -> None:
    asked = [(question, ranked(given)) for question in QUESTIONS for given in ("0123", "76543210", "5")]
    expected = opened.reranker.rerank([question for question, _ in asked], [ranking for _, ranking in asked], 3)
    parent = dspy.settings.lm

    def work(pair: tuple[str, Ranking]) -> str:
        with dspy.context(lm=parent):
            return order(opened.reranker.rerank([pair[0]], [pair[1]], 3)[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, asked)) == [order(ranking) for ranking in expected]


@pytest.mark.parametrize("k", [0, -1])
def test_every_reranker_refuses_to_give_nothing(opened: Opened, k: int) -> None:
    with pytest.raises(RagwrightError, match="k: at least 1"):
        opened.reranker.rerank([QUESTION], [ranked("01")], k)
    with pytest.raises(RagwrightError, match="k: at least 1"):
        opened.reranker.rerank([], [], k)


# None, lexical, mmr


def test_none_keeps_order_and_scores(index: Index) -> None:
    found = rerank_one(open_reranker("none", index), "3120", 3)
    assert order(found) == "312" and found.scores == pytest.approx(ranked("3120").scores[:3])


def test_lexical_prefers_rare_words_and_keeps_ties(index: Index) -> None:
    found = rerank_one(open_reranker("lexical", index), "3102")
    assert order(found) == "2103"
    rare, common = index.sparse.idf("crane"), index.sparse.idf("built")
    assert found.scores == pytest.approx([rare / (rare + common)] + [common / (rare + common)] * 2 + [0])


@pytest.mark.parametrize("question", ["", "the of and", "🦛"])
def test_lexical_keeps_the_order_where_no_word_counts(index: Index, question: str) -> None:
    found = rerank_one(open_reranker("lexical", index), "2031", question=question)
    assert order(found) == "2031" and not found.scores.any()


def test_mmr_puts_a_twin_behind_something_new(index: Index) -> None:
    found = rerank_one(open_reranker("mmr", index), "0123")
    assert order(found) == "0213"
    scores = [0.7 * 0.8, 0.7 * 0.8 - 0.3 * 0.28, 0.7 * 0.8 - 0.3, -0.7]
    assert found.scores == pytest.approx(scores, abs=1e-5)


def test_mmr_looks_at_each_question_of_a_large_batch_by_itself(index: Index) -> None:
    generator = np.random.default_rng(0)
    given = [ranked("".join(map(str, generator.permutation(4)[: at % 5]))) for at in range(300)]
    questions = [list(VECTORS)[at % 3] for at in range(300)]
    reranker = open_reranker("mmr", index)
    together = reranker.rerank(questions, given, 3)
    alone = [reranker.rerank([question], [ranking], 3)[0] for question, ranking in zip(questions, given, strict=True)]
    assert list(map(order, together)) == list(map(order, alone))


def test_mmr_needs_an_embedder(open_texts: Callable[..., Index]) -> None:
    bare = open_texts(["x"], retriever="sparse")
    with pytest.raises(RagwrightError, match="mmr needs an embedder"):
        open_reranker("mmr", bare)


# maxsim


@pytest.fixture(scope="module")
def seas(open_texts: Callable[..., Index]) -> Index:
    return open_texts(
        ["The tax was raised.", "The ship sank.", "The ship and the tax.", "Snow fell on the ships.", "Nothing."]
    )


def test_maxsim_is_lexical_where_all_words_are_the_same(seas: Index) -> None:
    found = rerank_one(open_reranker("maxsim", seas), "0123", question="tax ship")
    assert found.positions[0] == 2 and found.scores[0] == pytest.approx(1.0, abs=1e-5)


def test_maxsim_finds_words_that_are_alike(seas: Index) -> None:
    question = "vessel"
    assert not rerank_one(open_reranker("lexical", seas), "0123", question=question).scores.any()
    found = rerank_one(open_reranker("maxsim", seas), "0123", question=question)
    assert order(found)[-1] == "0" and found.scores[0] > found.scores[-1] + 0.05
    assert found.scores.min() >= 0 and found.scores.max() < 1


def test_maxsim_weighs_words_by_their_idf(seas: Index) -> None:
    found = rerank_one(open_reranker("maxsim", seas), "12", question="snow ship")
    alone = {word: rerank_one(open_reranker("maxsim", seas), "1", question=word).scores[0] for word in ("snow", "ship")}
    weights = {word: seas.sparse.idf(word) for word in alone}
    assert weights["snow"] > weights["ship"]
    expected = sum(weights[word] * alone[word] for word in alone) / sum(weights.values())
    assert found.scores[order(found).index("1")] == pytest.approx(expected, abs=1e-5)


def test_maxsim_gives_nothing_to_a_passage_without_words(open_texts: Callable[..., Index]) -> None:
    reranker = open_reranker("maxsim", open_texts(["…", "The ship sank.", "¿?", "Snow fell."]))
    for retrieved in ("0123", "1203", "3102", "20"):
        scores = scores_of(reranker, retrieved, "ship")
        assert scores["0"] == scores["2"] == 0.0 and all(scores[at] > 0 for at in "13" if at in retrieved)


def test_maxsim_embeds_a_word_once(seas: Index) -> None:
    embedder = embedding.open_embedder(late_interaction.STATIC_MODEL)
    rerank_one(open_reranker("maxsim", seas), "0123", question="a frigate")
    before = embedder.texts_embedded
    rerank_one(open_reranker("maxsim", seas), "3210", question="FRIGATE! tax")
    assert embedder.texts_embedded == before
    rerank_one(open_reranker("maxsim", seas), "3210", question="a galleon")
    assert embedder.texts_embedded == before + 1


def test_maxsim_forgets_words_when_they_become_too_many(seas: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_interaction, "_TERMS_KEPT", 2)
    reranker = open_reranker("maxsim", seas)
    first = rerank_one(reranker, "0123", question="ships of state")
    embedder = embedding.open_embedder(late_interaction.STATIC_MODEL)
    before = embedder.texts_embedded
    again = rerank_one(reranker, "0123", question="ships of state")
    assert embedder.texts_embedded > before
    assert order(again) == order(first) and again.scores == pytest.approx(first.scores, abs=1e-6)


def test_maxsim_cuts_large_batches_to_size(seas: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = ["ships", "snow on a vessel", "", "the state's tax", "income"] * 3
    given = [ranked("0123"[: at % 5]) for at in range(15)]
    whole = open_reranker("maxsim", seas).rerank(questions, given, 4)
    monkeypatch.setattr(late_interaction, "_SIMILARITIES", 4)
    parts = open_reranker("maxsim", seas).rerank(questions, given, 4)
    assert list(map(order, parts)) == list(map(order, whole))


# llm


@contextmanager
def asking(answer: str) -> Iterator[OpenAIServer]:
    """A language model that always answers the same, in the context of DSPy."""
    with OpenAIServer(answer=lambda body: answer) as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key="x", cache=False, num_retries=0)
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
            yield server


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("3, 1, 2, 4", "1230"),
        ("[4] > [2]", "0321"),
        ("Passage 2 (of 1871) fits, then 0, -7, 99 and 2.", "3210"),
        ("none of them", "2310"),
        ("", "2310"),
        ("2" * 400, "2310"),
    ],
)
@pytest.mark.parametrize("form", ["[[ ## order ## ]]\n{}\n\n[[ ## completed ## ]]", "{}"])
def test_llm_reads_poor_replies_as_well_as_it_can(index: Index, reply: str, expected: str, form: str) -> None:
    with asking(form.format(reply)):
        found = rerank_one(open_reranker("llm", index), "2310")
    assert order(found) == expected and found.scores.tolist() == [1.0, 0.75, 0.5, 0.25]


def test_llm_shows_the_texts_of_chunks_numbered(open_texts: Callable[..., Index]) -> None:
    index = open_texts(list(VECTORS)[:2], context_prefix="title")
    with asking("[[ ## order ## ]]\n2") as server:
        reranker = open_reranker("llm", index)
        assert order(rerank_one(reranker, "10")) == "01"
    assert isinstance(reranker, ListwiseReranker)
    [request] = server.requests
    assert "[1] In 1871 the harbour was built.\n\n[2] The harbour was built in 1871." in request.prompt
    assert QUESTION in request.prompt and reranker.predictor.signature.instructions in request.prompt
    assert "A port" in index.texts[0] and "A port" not in request.prompt


def test_llm_is_asked_only_where_there_is_something_to_order(index: Index) -> None:
    with asking("2") as server:
        open_reranker("llm", index).rerank([QUESTION, QUESTION, ""], [ranked("1"), ranked(""), ranked("12")], 5)
    assert server.requests == []


def test_llm_leaves_no_trace_for_optimizers(index: Index) -> None:
    trace: list[object] = []
    with asking("[[ ## order ## ]]\n2") as server, dspy.context(trace=trace):
        rerank_one(open_reranker("llm", index), "01")
    assert trace == [] and len(server.requests) == 1


def test_errors_of_the_lm_are_not_swallowed(index: Index) -> None:
    with asking("2") as server:
        server.fail(500, times=9)
        with pytest.raises(dspy.utils.exceptions.LMError):
            rerank_one(open_reranker("llm", index), "01")


@given(st.text(alphabet="0123456789 ,[]\nx²٣", max_size=30), st.integers(0, 6))
@settings(derandomize=True, deadline=None)
def test_whatever_the_reply_each_place_is_named_once(reply: str, size: int) -> None:
    assert sorted(read_order(reply, size)) == list(range(size))


# Models on this machine


def scores_of(reranker: Reranker, given: str, question: str = QUESTION) -> dict[str, float]:
    found = rerank_one(reranker, given, question=question)
    return dict(zip(order(found), found.scores.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["fastembed:{}/cross", "colbert:{}/late"])
def test_a_model_prefers_what_is_like_the_question(index: Index, models: Path, kind: str) -> None:
    reranker = open_reranker(kind.format(models), index)
    assert order(rerank_one(reranker, "0123", question="Bread, baked before dawn"))[0] == "3"
    assert order(rerank_one(reranker, "0123", question="a crane unloads ships"))[0] == "2"


def test_a_colbert_model_scores_the_mean_of_best_matches(index: Index, models: Path) -> None:
    from fastembed import LateInteractionTextEmbedding

    model = LateInteractionTextEmbedding("colbert-ir/colbertv2.0", specific_model_path=str(models / "late"))
    [question], [passage] = model.query_embed(QUESTION), model.embed([index.texts[2]])
    expected = (question @ passage.T).max(axis=1).mean()
    assert scores_of(open_reranker(f"colbert:{models}/late", index), "2") == {"2": pytest.approx(expected, abs=1e-5)}


def test_a_colbert_model_embeds_a_passage_once_while_it_is_remembered(
    open_texts: Callable[..., Index], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"passage number {number}" for number in range(6)]
    expected = scores_of(open_reranker(f"colbert:{models}/late", open_texts(texts)), "012345")
    monkeypatch.setattr(late_interaction, "_BYTES_KEPT", 2000)
    assert scores_of(open_reranker(f"colbert:{models}/late", open_texts(texts)), "012345") == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["fastembed:{}/cross", "colbert:{}/late", "infinity/any"])
def test_a_pair_is_scored_once(open_texts: Callable[..., Index], models: Path, server: RerankServer, kind: str) -> None:
    index = open_texts(TEXTS)
    reranker = open_reranker(kind.format(models), index)
    assert isinstance(reranker, PairReranker)
    # Eight chunks have six texts; the same question comes twice.
    reranker.rerank([QUESTION, QUESTION], [ranked("01234567"), ranked("7654")], 3)
    assert reranker.pairs_scored == 6
    reranker.rerank([QUESTION, "another"], [ranked("321"), ranked("0")], 2)
    assert reranker.pairs_scored == 7
    reranker.rerank([" \n", QUESTION], [ranked("321"), ranked("0")], 2)
    assert reranker.pairs_scored == 7
    again = open_reranker(kind.format(models), index)
    assert isinstance(again, PairReranker)
    assert order(rerank_one(again, "01234567")) == order(rerank_one(reranker, "01234567"))
    assert again.pairs_scored == 0
    assert len(server.pairs) == (7 if kind == "infinity/any" else 0)


def test_scores_lie_in_the_cache_folder_of_the_runs(index: Index, models: Path) -> None:
    rerank_one(open_reranker(f"fastembed:{models}/cross", index), "0")
    assert index.cache is not None and (index.cache / "scores.sqlite").is_file()


def test_threads_score_a_pair_once(open_texts: Callable[..., Index], models: Path) -> None:
    reranker = open_reranker(f"fastembed:{models}/cross", open_texts(list(VECTORS)))
    assert isinstance(reranker, PairReranker)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rerank_one(reranker, "0123"), range(24)))
    assert reranker.pairs_scored == 4


def test_models_read_the_context_prefix(open_texts: Callable[..., Index], server: RerankServer) -> None:
    index = open_texts(list(VECTORS)[:1], context_prefix="title")
    rerank_one(open_reranker("infinity/any", index), "0")
    assert server.pairs == [(QUESTION, index.texts[0])] and index.texts[0].startswith("A port")


def test_another_model_in_the_same_folder_scores_anew(open_texts: Callable[..., Index], tmp_path: Path) -> None:
    index, name = open_texts(list(VECTORS)), f"fastembed:{tmp_path}"
    write_cross_encoder(tmp_path)
    before, identity = scores_of(open_reranker(name, index), "0123"), reranker_identity(name)
    write_cross_encoder(tmp_path, seed=1)
    assert reranker_identity(name) != identity
    assert scores_of(open_reranker(name, index), "0123") != before
    write_cross_encoder(tmp_path)
    assert reranker_identity(name) == identity and scores_of(open_reranker(name, index), "0123") == before


def test_sentence_transformers_score_pairs(index: Index, sentence_transformers: None) -> None:
    reranker = open_reranker("sentence-transformers:organisation/counts", index)
    assert scores_of(reranker, "3210", "The harbour was closed") == {"0": 3.0, "1": 2.0, "3": 0.0, "2": 0.0}
    assert "9.9 organisation/counts" in reranker_identity("sentence-transformers:organisation/counts")


@pytest.mark.parametrize(
    ("name", "question", "message"),
    [
        ("nowhere/model", QUESTION, "cannot be loaded: OSError: no such model; check the name"),
        ("three/classes", QUESTION, "gives 3 numbers for a pair"),
        ("some/model", "nan", "gave a score that is no finite number"),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide|invalid value)")
def test_useless_cross_encoders_are_explained(
    index: Index, sentence_transformers: None, name: str, question: str, message: str
) -> None:
    reranker = open_reranker(f"sentence-transformers:{name}", index)
    with pytest.raises(RagwrightError, match=message) as caught:
        rerank_one(reranker, "01", question=question)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", MODELS)
def test_a_missing_package_is_named_with_its_extra(index: Index, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    extra = MODELS[kind].package
    for call in (check_reranker, reranker_identity, lambda name: open_reranker(name, index)):
        with pytest.raises(MissingExtraError, match=rf"'{kind}:some/model' needs .*ragwright\[{extra}\]"):
            call(f"{kind}:some/model")


@pytest.mark.parametrize("kind", ["fastembed", "colbert"])
def test_unknown_models_are_answered_with_the_known_ones(index: Index, kind: str) -> None:
    known = {"fastembed": "BAAI/bge-reranker-base", "colbert": "colbert-ir/colbertv2.0"}
    for call in (reranker_identity, lambda name: open_reranker(name, index)):
        with pytest.raises(RagwrightError, match=f"'{kind}:no/model' names no folder.*{known[kind]}") as caught:
            call(f"{kind}:no/model")
    assert "\n" not in str(caught.value)


def test_a_published_model_that_cannot_be_had_is_explained(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    for name in ("fastembed:Xenova/ms-marco-MiniLM-L-6-v2", "colbert:colbert-ir/colbertv2.0"):
        # The model is loaded when there is something to score.
        reranker = open_reranker(name, index)
        rerank_one(reranker, "")
        with pytest.raises(RagwrightError, match=f"'{name}' is neither on this machine nor"):
            rerank_one(reranker, "0")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["fastembed", "colbert"])
def test_a_folder_that_holds_no_model_is_explained(index: Index, kind: str, tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match=r"lacks model\.onnx or .*onnx, tokenizer\.json, tokenizer_config\.json"):
        check_reranker(f"{kind}:{tmp_path}")
    (write_cross_encoder(tmp_path) / "model.onnx").write_bytes(b"no model")
    check_reranker(f"{kind}:{tmp_path}")
    with pytest.raises(RagwrightError, match="cannot be loaded: ") as caught:
        rerank_one(open_reranker(f"{kind}:{tmp_path}", index), "0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "pooling"), [("fastembed", "mean"), ("colbert", "built in")])
def test_a_model_for_something_else_is_explained(
    open_texts: Callable[..., Index], kind: str, pooling: str, tmp_path: Path
) -> None:
    reranker = open_reranker(f"{kind}:{write_dense_model(tmp_path, pooling=pooling)}", open_texts(list(VECTORS)))
    with pytest.raises(RagwrightError, match=r"failed: .*; check that it is a model of this kind\.") as caught:
        rerank_one(reranker, "01")
    assert "\n" not in str(caught.value)


# APIs


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cohere/rerank-v3.5", "/v2/rerank"),
        ("jina_ai/jina-reranker-v2", "/v1/rerank"),
        ("voyage/rerank-2.5", "/v1/rerank"),
        ("infinity/a/model:tag", "/rerank"),
        ("hosted_vllm/a/model", "/rerank"),
    ],
)
def test_an_api_is_asked_once_for_all_passages_of_a_question(
    open_texts: Callable[..., Index], server: RerankServer, name: str, path: str
) -> None:
    index = open_texts(list(VECTORS))
    scores = scores_of(open_reranker(name, index), "0123")
    expected = {str(at): len(set(QUESTION) & set(text)) / 100 for at, text in enumerate(index.texts)}
    assert scores == pytest.approx(expected)
    [(asked_path, body, key)] = server.requests
    assert asked_path == path and key == f"Bearer {KEY}"
    assert body["model"] == name.partition("/")[2] and body["query"] == QUESTION
    assert sorted(body["documents"]) == sorted(VECTORS) and body.get("return_documents") is not True


def test_an_api_is_asked_for_a_few_questions_at_a_time(open_texts: Callable[..., Index], server: RerankServer) -> None:
    server.delay_s = 0.02
    questions = [f"question {number}" for number in range(12)]
    reranker = open_reranker("cohere/few", open_texts(list(VECTORS)))
    found = reranker.rerank(questions, [ranked("0123")] * 12, 2)
    assert len(server.requests) == 12 and all(len(ranking) == 2 for ranking in found)
    assert server.requests[0][1]["query"] == "question 0"
    assert 1 < server.most_at_once <= 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusing_api_is_explained_in_one_line_without_the_key(
    open_texts: Callable[..., Index], server: RerankServer, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    server.statuses = [status] * 9
    reranker = open_reranker("voyage/refused", open_texts(list(VECTORS)))
    with pytest.raises(EndpointError) as caught:
        reranker.rerank(["one", "two", "three"], [ranked("01")] * 3, 2)
    message = str(caught.value)
    assert "reranker 'voyage/refused' failed" in message and f"(status {status})" in message
    assert "VOYAGE_API_KEY" in message and KEY not in message and "\n" not in message
    assert len(server.requests) == 1
    assert capfd.readouterr() == ("", "")


def test_a_passing_failure_is_tried_again(open_texts: Callable[..., Index], server: RerankServer) -> None:
    server.statuses = [429, 503]
    assert len(rerank_one(open_reranker("jina_ai/busy", open_texts(list(VECTORS))), "01")) == 2
    assert len(server.requests) == 3


def test_a_lasting_failure_keeps_what_was_scored(open_texts: Callable[..., Index], server: RerankServer) -> None:
    reranker = open_reranker("cohere/fails", open_texts(list(VECTORS)))
    server.statuses = [200] + [500] * 50
    with pytest.raises(RagwrightError, match="InternalServerError") as caught:
        reranker.rerank(["one", "two", "three"], [ranked("01")] * 3, 2)
    assert not isinstance(caught.value, EndpointError)
    server.statuses, before = [], len(server.requests)
    reranker.rerank(["one", "two", "three"], [ranked("01")] * 3, 2)
    assert {body["query"] for _, body, _ in server.requests[before:]} == {"two", "three"}


def test_answers_that_come_after_an_error_are_kept(open_texts: Callable[..., Index], server: RerankServer) -> None:
    reranker = open_reranker("cohere/once", open_texts(list(VECTORS)))
    questions = ["one", "two", "three", "four", "five"]
    server.statuses, server.delay_s = [200, 400], 0.1
    with pytest.raises(RagwrightError, match="BadRequestError"):
        reranker.rerank(questions, [ranked("01")] * 5, 2)
    assert len(server.requests) == 5
    reranker.rerank(questions, [ranked("01")] * 5, 2)
    assert len(server.requests) == 6


def test_an_address_may_also_be_given_as_base_url(
    open_texts: Callable[..., Index], server: RerankServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOYAGE_API_BASE")
    monkeypatch.setenv("VOYAGE_BASE_URL", server.url)
    rerank_one(open_reranker("voyage/rerank-2.5", open_texts(list(VECTORS))), "01")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"results": content["results"][1:]},
        lambda content: content | {"results": [*content["results"], content["results"][0]]},
        lambda content: content | {"results": [result | {"index": 0} for result in content["results"]]},
        lambda content: content | {"results": [result | {"relevance_score": None} for result in content["results"]]},
        lambda content: {"id": "x"},
        lambda content: [],
    ],
)
def test_an_answer_that_is_not_a_score_for_each_is_refused(
    open_texts: Callable[..., Index], server: RerankServer, change: Callable[[dict[str, Any]], Any]
) -> None:
    server.change = change
    with pytest.raises(RagwrightError, match="reranker 'infinity/odd' failed: ") as caught:
        rerank_one(open_reranker("infinity/odd", open_texts(list(VECTORS))), "0123")
    assert "\n" not in str(caught.value)


def test_an_api_that_is_not_there_is_explained(open_texts: Callable[..., Index], server: RerankServer) -> None:
    name, index = "infinity/gone", open_texts(list(VECTORS))
    server.__exit__()
    with pytest.raises(RagwrightError, match=f"'{name}' failed: its endpoint answered with .*INFINITY_API_BASE"):
        rerank_one(open_reranker(name, index), "0123")


# Names


def test_the_names_that_need_a_language_model_are_rerankers() -> None:
    assert set(RERANKERS) >= NEEDS_LM and "llm" in NEEDS_LM


def test_plain_names_are_good_and_their_own_identity(models: Path) -> None:
    for name in RERANKERS:
        check_reranker(name)
        assert reranker_identity(name).startswith(name)
    for name in (f"fastembed:{models}/cross", f"colbert:{models}/late", "cohere/rerank-v3.5", "infinity/a/b:c"):
        check_reranker(name)
    assert (
        len(
            {
                reranker_identity(f"{kind}:{models}/{folder}")
                for kind, folder in (("fastembed", "cross"), ("colbert", "late"))
            }
        )
        == 2
    )


@pytest.mark.parametrize("name", ["", "bm25", "fastembed", "fastembed:", "colbert:", "fastembedd:x", "None", "none "])
def test_unknown_names_are_answered_with_the_choices(index: Index, name: str) -> None:
    choices = (
        "none, lexical, mmr, maxsim, llm, fastembed:MODEL, colbert:MODEL, sentence-transformers:MODEL, or provider/"
    )
    for call in (check_reranker, reranker_identity, lambda name: open_reranker(name, index)):
        with pytest.raises(RagwrightError, match=re.escape(f"{name!r} is unknown; choose {choices}")):
            call(name)


@pytest.mark.parametrize("name", ["openai/gpt-4o-mini", "coher/rerank", "cohere/", "/model", "other:cohere/model"])
def test_providers_that_do_not_rerank_are_answered_with_those_that_do(index: Index, name: str) -> None:
    for call in (check_reranker, reranker_identity, lambda name: open_reranker(name, index)):
        with pytest.raises(RagwrightError, match=f"{name!r} names no reranking API; .*cohere, jina_ai.*as llm"):
            call(name)


def test_litellm_knows_every_provider() -> None:
    import litellm

    assert set(api_reranking.PROVIDERS) <= {provider.value for provider in litellm.LlmProviders}


def test_the_identity_tells_endpoints_apart_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHERE_API_BASE", raising=False)
    plain = reranker_identity("cohere/rerank-v3.5")
    monkeypatch.setenv("COHERE_API_BASE", f"http://user:{KEY}@127.0.0.1:1/v2")
    there = reranker_identity("cohere/rerank-v3.5")
    assert there != plain and "127.0.0.1" in there and KEY not in there
