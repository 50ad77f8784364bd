"""One configuration of the pipeline: everything about a program but its compiled prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from programs.errors import RagwrightError


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """A point of the search space. Field names are the parameter names everywhere: study file, Optuna, MLflow, export.

    Attributes:
        splitter: A name in `programs.splitting.SPLITTERS`.
        chunk_size: Largest chunk, in tokens of the counting tokenizer.
        chunk_overlap: Share of `chunk_size` that neighbouring chunks have in common, in [0, 0.9].
        context_prefix: A name in `programs.prefix.PREFIXES`: what a chunk is indexed with, beside its own text.
        embedder: What turns text into vectors; `none` where nothing does.
        retriever: A name in `programs.retrieval.RETRIEVERS`.
        dense_weight: What vectors weigh against words in the retriever `weighted`, in [0, 1].
        filter: A condition on the documents' metadata, such as `lang=en, year>=2020`; empty for all documents.
        retrieve_k: Number of chunks that the reranker receives.
        reranker: A name in `programs.reranking.RERANKERS`, or a model.
        cutoff: Passages that score below this share of the way from the weakest retrieved to the best are dropped, in
            [0, 1).
        top_k: Number of passages that the LM receives.
        expansion: A name in `programs.expansion.EXPANSIONS`: how a passage is widened before the LM receives it.
        prompt_format: A name in `programs.prompt_format.FORMATS`.
    """

    splitter: str = "recursive"
    chunk_size: int = 256
    chunk_overlap: float = 0.0
    context_prefix: str = "none"
    embedder: str = "wordllama"
    retriever: str = "dense"
    dense_weight: float = 0.5
    filter: str = ""
    retrieve_k: int = 20
    reranker: str = "none"
    cutoff: float = 0.0
    top_k: int = 3
    expansion: str = "none"
    prompt_format: str = "chat"

    def canonical(self) -> Self:
        """The same pipeline with the settings that have no effect set to one value, so that equals hash equal."""
        changes: dict[str, Any] = {}
        retriever = self.retriever
        if retriever == "weighted" and self.dense_weight in (0.0, 1.0):
            retriever = changes["retriever"] = "dense" if self.dense_weight else "sparse"
        if retriever != "weighted":
            changes["dense_weight"] = 0.5
        if not replace(self, retriever=retriever).needs_vectors:
            changes["embedder"] = "none"
        if (self.reranker == "none" and not self.cutoff) or self.retrieve_k < self.top_k:
            changes["retrieve_k"] = self.top_k
        if self.splitter == "whole":
            changes |= {"chunk_size": 256, "chunk_overlap": 0.0, "expansion": "none"}
        return replace(self, **changes)

    @property
    def needs_vectors(self) -> bool:
        """Whether something in it looks at vectors."""
        return self.retriever != "sparse" or self.reranker == "mmr"

    def fingerprint(self) -> str:
        """Twelve hex digits that name the canonical configuration."""
        return fingerprint(asdict(self.canonical()))

    def as_params(self) -> dict[str, Any]:
        """The fields as a flat dictionary, in declaration order."""
        return asdict(self)

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Self:
        """Read the fields back; unknown names are refused."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(params) - known)
        if unknown:
            raise RagwrightError(f"unknown pipeline setting {unknown[0]!r}; known settings: {', '.join(sorted(known))}")
        return cls(**params)


def fingerprint(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON-serializable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
