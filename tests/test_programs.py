"""RAG, MultiHop and a person's own program, over a search that a test can watch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

from programs.catalogue import build_program, load_object
from programs.errors import RagwrightError
from programs.lm import open_lm, parse_lm
from programs.multihop import MultiHop
from programs.prompt_format import FORMATS
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
    return tuple(Passage(Chunk(key, Span(key, 0, len(text)), text), 1.0) for key, text in found)


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


def test_abstaining_is_asked_for_where_the_data_needs_it() -> None:
    told = build_program("rag", search, abstain=True).generate.signature.instructions
    assert "unanswerable" in told
    assert "unanswerable" not in build_program("rag", search).generate.signature.instructions


def test_a_persons_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: OpenAIServer) -> None:
    (tmp_path / "mine_programs.py").write_text(
        "from programs.rag import RAG\n\ndef build(search):\n    return RAG(lambda q: search(q + ' Runa'))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert build_program("mine_programs:build", search)(question=QUESTION).answer == "Tarn"


@pytest.mark.parametrize("name", ["rga", "no_such_module:build", "json:no_such_name", "json:", ":build"])
def test_unknown_programs_are_named(name: str) -> None:
    with pytest.raises(RagwrightError, match="rag, multihop"):
        build_program(name, search)


def test_load_object_says_what_is_missing() -> None:
    with pytest.raises(RagwrightError, match="has no 'nothing'"):
        load_object("json:nothing", "metric")
