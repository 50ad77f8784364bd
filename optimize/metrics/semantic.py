"""A metric that compares what an answer means with the gold answers, by an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optimize.metrics.metric import Metric
from optimize.metrics.overlap import against_golds

NAME, DEFAULT_EMBEDDER = "embedding_similarity", "wordllama"


def embedding_similarity(embedder: str = DEFAULT_EMBEDDER, cache: Path | None = None) -> Metric:
    """Cosine of the answer's vector and the closest gold answer's; below 0 it counts as 0.

    Moved to [0, 1] by (1 + cosine) / 2 instead, an answer that has nothing to do with the gold one would score a half,
    and every difference would be halved. Unrelated answers still score above 0, and an answer and its opposite score
    high: read differences, not heights.

    Args:
        embedder: As configurations name it.
        cache: The folder in which vectors are kept; None keeps none.

    """

    def compare(answer: str, golds: Sequence[str]) -> float:
        from programs.embedding import open_embedder

        rows = open_embedder(embedder, cache).embed([answer, *golds])
        return max(0.0, float((rows[1:] @ rows[0]).max()))

    name = NAME if embedder == DEFAULT_EMBEDDER else f"{NAME}:{embedder}"
    return Metric(name, frozenset({"answers"}), against_golds(compare))
