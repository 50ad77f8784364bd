"""What a study file may name, looked up in the tables of `programs` when a name is checked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

from pydantic import AfterValidator

from programs.errors import RagwrightError

PROMPT_FORMATS = ("compact", "chat", "json", "xml")
"""The names in `programs.prompt_format.FORMATS`, whose import would take DSPy along."""


def _splitters() -> Collection[str]:
    from programs.splitting import SPLITTERS

    return SPLITTERS


def _retrievers() -> Collection[str]:
    from programs.retrieval import RETRIEVERS

    return RETRIEVERS


def _rerankers() -> Collection[str]:
    from programs.reranking import RERANKERS

    return RERANKERS


def _known(what: str, choices: Callable[[], Collection[str]]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in choices():
            raise ValueError(f"unknown {what} {name!r}; choices: {', '.join(choices())}")
        return name

    return AfterValidator(check)


def _known_embedder(name: str) -> str:
    from programs.embedding import embedder_identity

    try:
        embedder_identity(name)
    except RagwrightError as error:
        raise ValueError(str(error).removeprefix("embedder: ").rstrip(".")) from None
    return name


SplitterName = Annotated[str, _known("splitter", _splitters)]
RetrieverName = Annotated[str, _known("retriever", _retrievers)]
RerankerName = Annotated[str, _known("reranker", _rerankers)]
EmbedderName = Annotated[str, AfterValidator(_known_embedder)]
PromptFormatName = Annotated[str, _known("prompt_format", lambda: PROMPT_FORMATS)]
