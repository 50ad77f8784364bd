"""Several rankings made into one by the reciprocals of their ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from programs.types import Chunk, Passage

# The constant of Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
# learning methods" (SIGIR 2009).
RRF_CONSTANT = 60


def fuse(rankings: Iterable[Sequence[Passage]]) -> list[Passage]:
    """All passages of some rankings by their sums of 1 / (60 + rank), ranks from 1.

    Args:
        rankings: Each best first, a chunk at most once in it. Their scores need not be comparable: they do not count.

    Returns:
        Each chunk once, told apart by its id, best first, with its sum as the score. Equal sums stay in the order in
        which the rankings name the chunks.
    """
    chunks: dict[str, Chunk] = {}
    sums: dict[str, float] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, start=1):
            chunk = chunks.setdefault(passage.chunk.id, passage.chunk)
            sums[chunk.id] = sums.get(chunk.id, 0.0) + 1.0 / (RRF_CONSTANT + rank)
    ids = sorted(chunks, key=lambda chunk_id: -sums[chunk_id])
    return [Passage(chunks[chunk_id], sums[chunk_id]) for chunk_id in ids]
