"""What models want to stand before a question or a passage, by family.

Each entry follows the model's card on the hub. Libraries that embed leave this to their callers: fastembed adds nothing
(version 0.9), and an API passes the text on as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompts:
    """Text put before every question and before every passage."""

    question: str = ""
    passage: str = ""

    def __str__(self) -> str:
        """For identities: empty where there are none."""
        return f"prompts {[self.question, self.passage]}" if self.question or self.passage else ""


NO_PROMPTS = Prompts()

_SEARCH = Prompts(question="Represent this sentence for searching relevant passages: ")
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"

FAMILIES: tuple[tuple[str, Prompts], ...] = (
    # intfloat/multilingual-e5-large-instruct: the task before questions, passages as they are.
    (r"\be5-.*instruct", Prompts(question=_WEB_SEARCH + "Query: ")),
    # intfloat/e5-base-v2, intfloat/multilingual-e5-large: "Each input text should start with query: or passage:".
    (r"\be5-(small|base|large)", Prompts("query: ", "passage: ")),
    # nomic-ai/nomic-embed-text-v1.5: "requires prefixes".
    (r"\bnomic-embed-text", Prompts("search_query: ", "search_document: ")),
    # FlagOpen/FlagEmbedding, table of models: an instruction for the questions of the English and Chinese models (v1.5
    # can do without and gains a little by it); bge-m3 has none.
    (r"\bbge-(small|base|large)-en\b", _SEARCH),
    (r"\bbge-(small|base|large)-zh\b", Prompts(question="为这个句子生成表示以用于检索相关文章：")),  # noqa: RUF001
    # Snowflake/snowflake-arctic-embed-l-v2.0 (`snowflake-arctic-embed2` in Ollama): prompt "query".
    (r"\barctic-embed(2|.*-v2)", Prompts(question="query: ")),
    # Snowflake/snowflake-arctic-embed-m-v1.5: prompt "query".
    (r"\barctic-embed", _SEARCH),
    # mixedbread-ai/mxbai-embed-large-v1: "provide the prompt for query if you want to use it for retrieval".
    (r"\bmxbai-embed-large", _SEARCH),
    # google/embeddinggemma-300m: "task: search result | query: …", "title: none | text: …".
    (r"\bembedding-?gemma", Prompts("task: search result | query: ", "title: none | text: ")),
    # Qwen/Qwen3-Embedding-0.6B: get_detailed_instruct, no instruction for documents.
    (r"\bqwen3-embedding", Prompts(question=_WEB_SEARCH + "Query:")),
)
"""Pattern in the last part of a model's name -> its prompts; the first that is found counts."""


def find_prompts(model: str) -> Prompts:
    """The prompts of a model, given by its name or folder; empty ones where the family is not known to want any."""
    name = model.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    return next((prompts for pattern, prompts in FAMILIES if re.search(pattern, name)), NO_PROMPTS)
