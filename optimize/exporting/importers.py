"""An export's prompts in the shapes of other tools. Light: it imports nothing but what a shape asks for.

An importer takes the export's folder and, where the program has several predictors, the name of one. For plain DSPy
`prompt.md` has the code: it needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimize.exporting import fill as export_fill
from programs.errors import MissingExtraError, RagwrightError


def openai_request(export: str | Path, predictor: str | None = None, /, **inputs: Any) -> dict[str, Any]:
    """The arguments of the openai package's `chat.completions.create`, or `completions.create`, but for `model`.

    Args:
        export: An export folder.
        predictor: Which one; it may be left out where there is only one.
        **inputs: Every input: text, or a list of texts such as passages, the best first.

    Raises:
        RagwrightError: There is no such export or predictor, or its inputs are others.
    """
    with _usable(export):
        return export_fill.request(predictor, folder=export, **inputs)


def openai_answer(export: str | Path, reply: str | None, predictor: str | None = None, /) -> dict[str, str]:
    """The outputs in what the model replied.

    Raises:
        RagwrightError: There is no such export or predictor, or an output is missing.
    """
    with _usable(export):
        return export_fill.read(reply, predictor, folder=export)


def langchain_prompt(export: str | Path, predictor: str | None = None) -> Any:
    """A LangChain prompt template: a `ChatPromptTemplate`, or a `PromptTemplate` for bare completions.

    Its variables are texts as they stand in the prompt; `langchain_inputs` makes them of passages and a question.
    `langchain_settings` is the rest of the request, and `openai_answer` reads the reply.

    Args:
        export: An export folder.
        predictor: Which one; it may be left out where there is only one.

    Raises:
        MissingExtraError: LangChain is not installed.
        RagwrightError: There is no such export or predictor.
    """
    try:
        from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
    except ModuleNotFoundError:
        raise MissingExtraError("a LangChain prompt template", "langchain") from None
    names = _entry(export, predictor)["inputs"]
    # What no text can hold stands for the placeholders while all other braces are doubled.
    body = openai_request(export, predictor, **{name: f"\0{name}\0" for name in names})
    if "prompt" in body:
        return PromptTemplate.from_template(_braced(body["prompt"], names))
    return ChatPromptTemplate.from_messages(
        [(message["role"], _braced(message["content"], names)) for message in body["messages"]]
    )


def langchain_inputs(export: str | Path, predictor: str | None = None, /, **inputs: Any) -> dict[str, str]:
    """The variables of `langchain_prompt`: inputs as the study showed them to the LM.

    A prompt so filled is what the study sent, but that the compact format has no space before an empty text.

    Raises:
        RagwrightError: There is no such export or predictor, or its inputs are others.
    """
    openai_request(export, predictor, **inputs)
    prompt_format = _entry(export, predictor)["format"]
    return {name: export_fill.shown(value, prompt_format) for name, value in inputs.items()}


def langchain_settings(export: str | Path, predictor: str | None = None) -> dict[str, Any]:
    """What the study sent beside the prompt, such as temperature and stop: `prompt | model.bind(**settings)`.

    Raises:
        RagwrightError: There is no such export or predictor.
    """
    return dict(_entry(export, predictor)["settings"])


def _entry(export: str | Path, predictor: str | None) -> dict[str, Any]:
    with _usable(export):
        return export_fill.entry_of(predictor, export)


def _braced(text: str, names: list[str]) -> str:
    text = text.replace("{", "{{").replace("}", "}}")
    for name in names:
        text = text.replace(f"\0{name}\0", f"{{{name}}}")
    return text


@contextmanager
def _usable(export: str | Path) -> Iterator[None]:
    if not Path(export, "manifest.json").is_file():
        raise RagwrightError(
            f"{export}: cannot be used as an export, it has no manifest.json; `ragwright export` says where one lies."
        )
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise RagwrightError(f"{export}: {error}") from None
