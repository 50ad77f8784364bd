"""Cutting a text where its subject changes, as neighbouring sentences' vectors tell.

Each gap between two sentences has a depth after Hearst (1997, "TextTiling", Computational Linguistics 23): how far the
similarity of the text before and after it lies below the nearest peaks on either side. Valleys that are deeper than
her cutoff are places to cut. Where the size demands more cuts, or fewer will do, the segmentation is the cheapest path
as in Utiyama and Isahara (2001, "A Statistical Model for Domain-Independent Text Segmentation", ACL): a cut costs the
cutoff less its depth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from math import inf
from statistics import fmean, pstdev

from programs.boundaries import INSIDE_SENTENCES, Cutter, Measure, Range, sentences
from programs.tokens import TEXTS_KEPT

# Sentences on either side of a gap whose vectors are compared: one alone says too little.
_BLOCK = 3
# Of a longer sentence the beginning says enough; the embedder's memory grows with the longest.
_LONGEST_EMBEDDED = 400
# A valley is cut though the size does not demand it where its depth exceeds the mean less so many standard deviations.
_CUTOFF_DEVIATIONS = 0.5
# Dearer than any cut between sentences: similarities lie in [-1, 1], depths up to 4.
_INSIDE_SENTENCE_COST = 5.0


def semantic_pieces(text: str, size: int, count: Measure) -> list[Range]:
    """Cut between sentences where the subject changes; inside a sentence where it is too long alone."""
    cutter = Cutter(text, size, count)
    parts: list[Range] = []
    costs: list[float] = []
    for sentence, cost in zip(sentences(text), _cut_costs(text), strict=True):
        inner = list(cutter.cut(sentence, INSIDE_SENTENCES))
        parts += inner
        costs += [cost] + [_INSIDE_SENTENCE_COST] * (len(inner) - 1)
    return _cheapest(parts, costs, size, count)


def _cheapest(parts: Sequence[Range], costs: Sequence[float], size: int, count: Measure) -> list[Range]:
    """The parts joined into pieces that fit, with the least sum of the costs of the cuts between them.

    `costs[i]` is that of a cut before part i. Where several ways cost the same, later pieces are the fuller ones.
    """
    least, begins, totals = [0.0], [], []
    # Where the last piece may begin: in order, each dearer than those before it.
    candidates: deque[int] = deque()
    for last, (_, end) in enumerate(parts):
        totals.append(least[last] + costs[last])
        while candidates and totals[candidates[-1]] > totals[last]:
            candidates.pop()
        candidates.append(last)
        while candidates[0] != last and count(parts[candidates[0]][0], end) > size:
            candidates.popleft()
        begins.append(candidates[0])
        least.append(totals[candidates[0]])
    pieces = []
    stop = len(parts)
    while stop:
        begin = begins[stop - 1]
        pieces.append((parts[begin][0], parts[stop - 1][1]))
        stop = begin
    return pieces[::-1]


@lru_cache(maxsize=TEXTS_KEPT)
def _cut_costs(text: str) -> tuple[float, ...]:
    """What a cut before each sentence costs: below 0 where the subject changes, and nothing before the first."""
    ranges = sentences(text)
    if len(ranges) < 2:
        return (0.0,) * len(ranges)
    similarities = _similarities([text[start : min(end, start + _LONGEST_EMBEDDED)] for start, end in ranges])
    depths = _depths(similarities)
    cutoff = fmean(depths) - _CUTOFF_DEVIATIONS * pstdev(depths)
    padded = [inf, *similarities, inf]
    lowest = [own <= min(one, other) for one, own, other in zip(padded, similarities, padded[2:], strict=False)]
    # Beside a valley's lowest gap the slope is deep too, but no second place to cut.
    costs = (cutoff - depth if low else max(0.0, cutoff - depth) for depth, low in zip(depths, lowest, strict=True))
    return (0.0, *costs)


def _similarities(texts: list[str]) -> list[float]:
    """For each gap between neighbours, the cosine between the mean vectors of the texts before and after it."""
    import numpy as np

    from programs.embedding import open_embedder

    vectors = open_embedder("wordllama").embed(texts)
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)])
    gaps = np.arange(1, len(texts))
    before = sums[gaps] - sums[np.maximum(gaps - _BLOCK, 0)]
    after = sums[np.minimum(gaps + _BLOCK, len(texts))] - sums[gaps]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = np.einsum("ij,ij->i", before, after) / np.maximum(lengths, 1e-9)
    # Rounded, so that the order in which a machine adds up decides nothing.
    return [round(float(cosine), 6) for cosine in cosines]


def _depths(similarities: Sequence[float]) -> list[float]:
    """How far each lies below the nearest peaks on its left and on its right, in sum."""
    left = _nearest_peaks(similarities)
    right = _nearest_peaks(similarities[::-1])[::-1]
    return [one + other - 2 * own for one, other, own in zip(left, right, similarities, strict=True)]


def _nearest_peaks(values: Sequence[float]) -> list[float]:
    """For each value, how high one gets from it towards the left without ever going down."""
    peaks: list[float] = []
    for number, value in enumerate(values):
        peaks.append(peaks[-1] if number and values[number - 1] >= value else value)
    return peaks
