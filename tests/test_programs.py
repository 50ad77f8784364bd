"""The programs and a person's own, over a search that a test can watch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

from programs.catalogue import PROGRAMS, build_program, load_object
from programs.errors import RagwrightError
from programs.lm import open_lm, parse_lm
from programs.multihop import MultiHop
from programs.prompt_format import FORMATS
from programs.query_writing import QUERIES, read_queries
from programs.rag import RAG
from programs.types import Chunk, Passage, Span
from tests.openai_server import OpenAIServer

LIBRARY = {
    "harbour": "The harbour master of Port Ilse is Runa Falk.",
    "Runa": "Runa Falk was born in Tarn.",
    "other": "Nothing to see here.",
}


def search(question: str) -> tuple[Passage, ...]:
    """Finds the text whose key is in the question."""
    found = [(key, text) for key, text in LIBRARY.items() if key in question] or [("other", LIBRARY["other"])]
    return tuple(passage(key, text) for key, text in found)


def passage(name: str, text: str, score: float = 1.0) -> Passage:
    return Passage(Chunk(name, Span(name, 0, len(text)), text), score)


def answer(body: dict[str, Any]) -> str:
    """Names the person to look up as a query, and the town once it has read of it."""
    prompt = body["messages"][0]["content"]
    if prompt.endswith("Query:"):
        return "Runa Falk born" if "Runa Falk" in prompt else "nothing"
    return "Tarn" if "born in Tarn" in prompt else "unknown"


@pytest.fixture
def reader() -> Any:
    with OpenAIServer(answer=answer) as server:
        lm = open_lm(parse_lm({"model": "openai/reader", "api_base": server.url, "retries": 0}))
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            yield server


QUESTION = "Where was the person in charge of the harbour born?"


def test_rag_shows_what_it_searched_and_keeps_the_passages(reader: OpenAIServer) -> None:
    prediction = RAG(search)(question=QUESTION)
    assert prediction.answer == "unknown"
    assert [passage.chunk.id for passage in prediction.passages] == ["harbour"]
    assert LIBRARY["harbour"] in reader.requests[0].prompt


def test_the_second_query_of_multihop_depends_on_the_first_passages(reader: OpenAIServer) -> None:
    prediction = MultiHop(search)(question=QUESTION)
    assert prediction.query == "Runa Falk born"
    assert [passage.chunk.id for passage in prediction.passages] == ["harbour", "Runa"]
    assert prediction.answer == "Tarn"
    lost = MultiHop(lambda query: search("other"))(question=QUESTION)
    assert lost.query == "nothing"


def test_multihop_shows_a_passage_once(reader: OpenAIServer) -> None:
    prediction = MultiHop(lambda query: search("harbour"))(question=QUESTION)
    assert [passage.chunk.id for passage in prediction.passages] == ["harbour"]


def test_a_persons_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: OpenAIServer) -> None:
    (tmp_path / "mine_programs.py").write_text(
        "from programs.rag import RAG\n\ndef build(search):\n    return RAG(lambda q: search(q + ' Runa'))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert build_program("mine_programs:build", search)(question=QUESTION).answer == "Tarn"


class Watched:
    """A search that finds what a test says and keeps the queries."""

    def __init__(self, found: Callable[[str], tuple[Passage, ...]] = search) -> None:
        self.found = found
        self.queries: list[str] = []

    def __call__(self, query: str) -> tuple[Passage, ...]:
        self.queries.append(query)
        return self.found(query)

    def __deepcopy__(self, memo: dict[int, Any]) -> Watched:
        return self


class Writer:
    """A model that writes `written` where it is not asked for an answer, and answers what it has read."""

    def __init__(self) -> None:
        self.written = ""
        self.wrapped = True

    def __call__(self, body: dict[str, Any]) -> str:
        text = "\n".join(message["content"] for message in body["messages"])
        field = next((name for name in ("query", "queries", "passage") if asks_for(text, name)), "answer")
        said = self.written if field != "answer" else "Tarn" if "born in Tarn" in text else "unknown"
        return f"[[ ## {field} ## ]]\n{said}\n\n[[ ## completed ## ]]" if "[[ ## " in text and self.wrapped else said


def asks_for(prompt: str, name: str) -> bool:
    return f"`{name}` (str)" in prompt.split("Your output fields are:")[-1][:60] or prompt.endswith(f"{name.title()}:")


@pytest.fixture
def writer() -> Iterator[tuple[OpenAIServer, Writer]]:
    model = Writer()
    with OpenAIServer(answer=model) as server:
        lm = open_lm(parse_lm({"model": "openai/writer", "api_base": server.url, "retries": 0}))
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            yield server, model


def ids(prediction: dspy.Prediction) -> list[str]:
    return [found.chunk.id for found in prediction.passages]


WRITING = ("rewrite", "hyde", "multi_query")


@pytest.mark.parametrize("prompt_format", ["compact", "chat"])
@pytest.mark.parametrize(
    ("name", "written", "queries", "found"),
    [
        ("rewrite", "Runa Falk born", ["Runa Falk born"], ["Runa"]),
        ("hyde", "Runa Falk was born in Oln.", [f"{QUESTION} Runa Falk was born in Oln."], ["harbour", "Runa"]),
        ("multi_query", "Runa; nobody", [QUESTION, "Runa", "nobody"], ["harbour"]),
    ],
)
def test_what_the_lm_writes_is_searched_by(
    writer: tuple[OpenAIServer, Writer],
    name: str,
    written: str,
    queries: list[str],
    found: list[str],
    prompt_format: str,
) -> None:
    server, model = writer
    model.written = written
    watched = Watched()
    with dspy.context(adapter=FORMATS[prompt_format]()):
        prediction = build_program(name, watched)(question=QUESTION)
    assert watched.queries == list(prediction.queries) == queries
    assert ids(prediction) == found
    assert prediction.answer == ("Tarn" if "Runa" in found else "unknown")
    writes, answers = [request.prompt for request in server.requests]
    assert QUESTION in writes and QUESTION in answers
    assert all(LIBRARY[key] in answers and LIBRARY[key] not in writes for key in found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_predictor_is_one_call(writer: tuple[OpenAIServer, Writer], name: str) -> None:
    server, model = writer
    model.written = "Runa; harbour"
    program = build_program(name, search)
    program(question=QUESTION)
    assert len(server.requests) == len(program.predictors())


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("written", ["", "  \n "])
def test_the_question_is_searched_for_where_nothing_is_written(
    writer: tuple[OpenAIServer, Writer], name: str, written: str
) -> None:
    writer[1].written = written
    prediction = build_program(name, search)(question=QUESTION)
    assert prediction.queries == (QUESTION,)
    assert prediction.passages == search(QUESTION)


@pytest.mark.parametrize("name", WRITING)
def test_the_question_is_searched_for_where_the_format_cannot_read_what_is_written(
    writer: tuple[OpenAIServer, Writer], name: str
) -> None:
    writer[1].written, writer[1].wrapped = "Runa", False
    program = build_program(name, Watched(lambda query: search("Runa")))
    program.generate = lambda **inputs: dspy.Prediction(answer=inputs["context"][0])
    with dspy.context(adapter=FORMATS["chat"]()):
        prediction = program(question=QUESTION)
    assert prediction.queries == (QUESTION,)
    assert prediction.answer == LIBRARY["Runa"]


@pytest.mark.parametrize("name", WRITING)
def test_an_error_of_the_lm_is_not_hidden(writer: tuple[OpenAIServer, Writer], name: str) -> None:
    server, model = writer
    model.written = "Runa"
    server.fail(400)
    watched = Watched()
    with pytest.raises(Exception, match="told to fail"):
        build_program(name, watched)(question=QUESTION)
    assert watched.queries == []
    assert len(server.requests) == 1


def test_what_several_queries_find_comes_first_and_no_more_than_one_search_finds(
    writer: tuple[OpenAIServer, Writer],
) -> None:
    finds = {QUESTION: "abc", "one": "dec", "two": "fe", "three": ""}
    watched = Watched(lambda query: tuple(passage(name, name, 9.0) for name in finds[query]))
    writer[1].written = "one; two; three; four"
    prediction = build_program("multi_query", watched)(question=QUESTION)
    assert watched.queries == [QUESTION, "one", "two", "three"]
    # e is second twice, c third twice, and the question's own first goes before the others' first.
    assert ids(prediction) == ["e", "c", "a"]
    assert [found.score for found in prediction.passages] == pytest.approx([2 / 62, 2 / 63, 1 / 61])


def test_a_query_that_repeats_the_question_or_another_is_searched_for_once(
    writer: tuple[OpenAIServer, Writer],
) -> None:
    writer[1].written = f"Runa; {QUESTION.lower()}; RUNA?; harbour; ..; born; Tarn"
    prediction = build_program("multi_query", search)(question=QUESTION)
    assert prediction.queries == (QUESTION, "Runa", "harbour", "born")
    assert len(prediction.queries) == QUERIES + 1


@pytest.mark.parametrize(
    ("written", "queries"),
    [
        ("harbour opened; who built it;", ["harbour opened", "who built it"]),
        ("1. harbour opened\n2. who built it\n", ["harbour opened", "who built it"]),
        ("1. harbour opened 2. who built it", ["harbour opened", "who built it"]),
        ("1) harbour opened; 2) who built it", ["harbour opened", "who built it"]),
        ("Query 1: harbour opened\nQuery 2: who built it", ["harbour opened", "who built it"]),
        ('Here are two queries:\n\n- "harbour opened"\n- "who built it"', ["harbour opened", "who built it"]),
        ("* **harbour opened**\n* **who built it**", ["harbour opened", "who built it"]),
        ("['harbour opened', 'who built it']", ["harbour opened", "who built it"]),
        ('["harbour opened", "who built it"]', ["harbour opened", "who built it"]),
        ("[harbour opened; who built it", ["[harbour opened", "who built it"]),
        ("harbour, opened in 1871", ["harbour, opened in 1871"]),
        ("harbour version 2. who built it", ["harbour version 2. who built it"]),
        ("1984 harbour", ["1984 harbour"]),
        ("\u6e2f\u306e\u6b74\u53f2", ["\u6e2f\u306e\u6b74\u53f2"]),
        (" ; \n - ; ..", []),
        ("1.", []),
        ("", []),
    ],
)
def test_queries_are_read_from_any_list(written: str, queries: list[str]) -> None:
    assert read_queries(written) == queries


@pytest.mark.parametrize("name", WRITING)
def test_a_demo_shows_what_its_predictor_would_get(name: str) -> None:
    program = build_program(name, search)
    for predictor, module in program.named_predictors():
        inputs = program.demo_inputs(predictor, QUESTION, {})
        assert set(inputs) == set(module.signature.input_fields)
        assert inputs["question"] == QUESTION
        assert inputs.get("context", [LIBRARY["harbour"]]) == [LIBRARY["harbour"]]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_programs_state_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    program = build_program(name, search)
    for place, predictor in enumerate(program.predictors()):
        predictor.signature = predictor.signature.with_instructions(f"Instructions {place}.")
        predictor.demos = [dspy.Example(question="Which?", **dict.fromkeys(predictor.signature.output_fields, "This"))]
    program.save(str(tmp_path / "program.json"))
    loaded = build_program(name, search)
    loaded.load(str(tmp_path / "program.json"))
    assert loaded.dump_state() == program.dump_state() != build_program(name, search).dump_state()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_copy_is_a_program_of_its_own(writer: tuple[OpenAIServer, Writer], name: str) -> None:
    writer[1].written = "Runa"
    program = build_program(name, Watched())
    twin = copy.deepcopy(program)
    for predictor in twin.predictors():
        predictor.signature = predictor.signature.with_instructions("Changed.")
    assert all(predictor.signature.instructions != "Changed." for predictor in program.predictors())
    assert twin(question=QUESTION).answer == program(question=QUESTION).answer


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_can_abstain(name: str) -> None:
    def told(abstain: bool) -> str:
        return str(build_program(name, search, abstain=abstain).generate.signature.instructions)

    assert "unanswerable" in told(True) and "unanswerable" not in told(False)


@pytest.mark.parametrize("name", ["rga", "no_such_module:build", "json:no_such_name", "json:", ":build"])
def test_unknown_programs_are_named(name: str) -> None:
    with pytest.raises(RagwrightError, match="rag, rewrite, hyde, multi_query, multihop"):
        build_program(name, search)


def test_load_object_says_what_is_missing() -> None:
    with pytest.raises(RagwrightError, match="has no 'nothing'"):
        load_object("json:nothing", "metric")
