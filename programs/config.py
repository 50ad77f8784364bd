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
        embedder: What turns text into vectors; `none` where nothing does.
        retriever: A name in `programs.retrieval.RETRIEVERS`.
        retrieve_k: Number of chunks that the reranker receives.
        reranker: A name in `programs.reranking.RERANKERS`.
        top_k: Number of passages that the LM receives.
        prompt_format: A name in `programs.prompt_format.FORMATS`.
    """

    splitter: str = "recursive"
    chunk_size: int = 256
    chunk_overlap: float = 0.0
    embedder: str = "wordllama"
    retriever: str = "dense"
    retrieve_k: int = 20
    reranker: str = "none"
    top_k: int = 3
    prompt_format: str = "chat"

    def canonical(self) -> Self:
        """The same pipeline with the settings that have no effect set to one value, so that equals hash equal."""
        changes: dict[str, Any] = {}
        if self.reranker == "none" or self.retrieve_k < self.top_k:
            changes["retrieve_k"] = self.top_k
        if self.retriever == "sparse" and self.reranker != "mmr":
            changes["embedder"] = "none"
        return replace(self, **changes)

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
