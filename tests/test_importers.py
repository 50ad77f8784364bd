from __future__ import annotations

import sys
from pathlib import Path

import pytest

from optimize.exporting.importers import (
    langchain_inputs,
    langchain_prompt,
    langchain_settings,
    openai_answer,
    openai_request,
)
from programs.errors import MissingExtraError, RagwrightError
from tests.openai_server import OpenAIServer
from tests.test_export_fill import Sent

CONTEXT = ["one\ntwo", "{three}"]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    with OpenAIServer() as server:
        return Sent(server, tmp_path_factory.mktemp("importers"), "compact", "completion", "multihop")


def test_an_export_is_a_request(sent: Sent) -> None:
    body = openai_request(sent.folder, "next_query", context=CONTEXT, question="When?")
    assert body["prompt"].endswith("Context: one two\n{three}\nQuestion: When?\nQuery:")
    assert body["stop"] == ["\n"]
    assert openai_answer(sent.folder, " 1889\nQuestion:", "generate") == {"answer": "1889"}


def test_inputs_are_shown_as_in_the_study(sent: Sent) -> None:
    shown = langchain_inputs(sent.folder, "generate", context=CONTEXT, question="When?")
    assert shown == {"context": "one two\n{three}", "question": "When?"}


def test_mistakes_are_one_line(sent: Sent, tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match=r"name one of \['next_query', 'generate'\]"):
        openai_request(sent.folder, context=CONTEXT, question="When?")
    with pytest.raises(RagwrightError, match=r"needs exactly \['context', 'question'\]"):
        openai_request(sent.folder, "generate", question="When?")
    with pytest.raises(RagwrightError, match="cannot be used as an export"):
        langchain_inputs(tmp_path, question="When?")
    with pytest.raises(RagwrightError, match=r"needs exactly \['context', 'question'\], got \['frage'\]"):
        langchain_inputs(sent.folder, "generate", frage="When?")


def test_a_folder_may_be_named_by_its_text(sent: Sent) -> None:
    settings = langchain_settings(str(sent.folder), "generate")
    body = openai_request(str(sent.folder), "generate", context=CONTEXT, question="When?")
    assert settings == {name: value for name, value in body.items() if name != "prompt"}
    assert settings["stop"] == ["\n"]


def test_without_langchain_the_extra_is_named(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.prompts", None)
    with pytest.raises(MissingExtraError, match=r"ragwright\[langchain\]"):
        langchain_prompt(sent.folder, "generate")
