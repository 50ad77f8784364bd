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


def _prefixes() -> Collection[str]:
    from programs.prefix import PREFIXES

    return PREFIXES


def _expansions() -> Collection[str]:
    from programs.expansion import EXPANSIONS

    return EXPANSIONS


def _known(what: str, choices: Callable[[], Collection[str]]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in choices():
            raise ValueError(f"unknown {what} {name!r}; choices: {', '.join(choices())}")
        return name

    return AfterValidator(check)


def _refused(setting: str, check: Callable[[str], object]) -> AfterValidator:
    """A check that raises what is wrong, without the setting's name, which the place tells."""

    def validate(text: str) -> str:
        try:
            check(text)
        except RagwrightError as error:
            raise ValueError(str(error).removeprefix(f"{setting}: ").rstrip(".")) from None
        return text

    return AfterValidator(validate)


def _check_embedder(name: str) -> None:
    from programs.embedding import embedder_identity

    embedder_identity(name)


def _check_embedder_or_none(name: str) -> None:
    if name != "none":
        _check_embedder(name)


def _check_reranker(name: str) -> None:
    from programs.reranking import check_reranker

    check_reranker(name)


def _check_filter(text: str) -> None:
    from programs.filtering import parse_filter

    parse_filter(text)


def _check_measure(name: str) -> None:
    from optimize.measures.table import parse_measure

    measure = parse_measure(name)
    if not (measure.needs_evidence and measure.from_spans):
        raise RagwrightError(f"{name!r} depends on more than the passages' places; choose one such as span_recall")


SplitterName = Annotated[str, _known("splitter", _splitters)]
RetrieverName = Annotated[str, _known("retriever", _retrievers)]
PrefixName = Annotated[str, _known("context_prefix", _prefixes)]
ExpansionName = Annotated[str, _known("expansion", _expansions)]
RerankerName = Annotated[str, _refused("reranker", _check_reranker)]
EmbedderName = Annotated[str, _refused("embedder", _check_embedder)]
EmbedderNameOrNone = Annotated[str, _refused("embedder", _check_embedder_or_none)]
MeasureName = Annotated[str, _refused("measure", _check_measure)]
FilterText = Annotated[str, _refused("filter", _check_filter)]
PromptFormatName = Annotated[str, _known("prompt_format", lambda: PROMPT_FORMATS)]
