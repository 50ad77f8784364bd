"""What spans hold of a question's evidence, counted in characters.

A fact is *found* by a span that holds at least half of the characters of one of its places. Of a fact's alternative
places the best covered one counts as gold (the first of them where several are covered alike): any one is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.data.example import Fact
from programs.types import Span

FOUND = 0.5
"""Share of a place's characters that one span must hold to find the fact."""

_Piece = tuple[str, int, int]
"""Document, first character, after the last: what sorts faster than a span."""


@dataclass(frozen=True, slots=True)
class Held:
    """What some spans, best first, hold of one question's evidence.

    Attributes:
        shares: For each fact the largest share of one place's characters that the spans cover together, in [0, 1].
        ranks: For each fact that was found the number of spans before the one that finds it first, ascending.
        gold: Characters of the places that count as gold; where they overlap, once.
        covered: How many of them the spans cover; what several spans cover, once.
        length: Characters of all spans; what several spans cover, several times.
    """

    shares: tuple[float, ...]
    ranks: tuple[int, ...]
    gold: int
    covered: int
    length: int

    @property
    def precision(self) -> float:
        """Share of the spans' characters that are gold, in [0, 1]; 0 where there are no spans."""
        return self.covered / self.length if self.length else 0.0


class Gold:
    """One question's evidence by document, so that a span elsewhere costs one look-up."""

    def __init__(self, evidence: Sequence[Fact]) -> None:
        """Prepare the facts; at least one."""
        assert evidence, "no evidence, no gold"
        self._places: list[_Piece] = []
        self._facts: list[list[int]] = []
        self._by_document: dict[str, list[tuple[int, int]]] = {}
        for fact, places in enumerate(evidence):
            self._facts.append([])
            for place in places:
                self._facts[fact].append(len(self._places))
                self._by_document.setdefault(place.span.doc_id, []).append((fact, len(self._places)))
                self._places.append((place.span.doc_id, place.span.start, place.span.end))

    def held_by(self, spans: Sequence[Span]) -> Held:
        """Compare the evidence with spans, best first."""
        pieces: dict[int, list[_Piece]] = {}
        ranks: dict[int, int] = {}
        length = 0
        for rank, span in enumerate(spans):
            length += span.end - span.start
            for fact, place in self._by_document.get(span.doc_id, ()):
                doc_id, start, end = self._places[place]
                if span.start < end and start < span.end:
                    first, last = max(span.start, start), min(span.end, end)
                    pieces.setdefault(place, []).append((doc_id, first, last))
                    if last - first >= FOUND * (end - start):
                        ranks.setdefault(fact, rank)
        shares = {place: _size(found) / _size([self._places[place]]) for place, found in pieces.items()}
        gold = [max(places, key=lambda place: shares.get(place, 0.0)) for places in self._facts]
        return Held(
            shares=tuple(shares.get(place, 0.0) for place in gold),
            ranks=tuple(ranks.values()),
            gold=_size([self._places[place] for place in gold]),
            covered=_size([piece for place in gold for piece in pieces.get(place, ())]),
            length=length,
        )


def _size(pieces: Sequence[_Piece]) -> int:
    """Characters in the union of pieces of documents."""
    if len(pieces) == 1:
        return pieces[0][2] - pieces[0][1]
    size, document, reached = 0, "", 0
    for doc_id, start, end in sorted(pieces):
        if doc_id != document:
            document, reached = doc_id, 0
        if end > reached:
            size += end - max(start, reached)
            reached = end
    return size
