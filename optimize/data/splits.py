"""Splits that share no source document, and the one order in which examples are looked at.

Questions over the same document are not independent: a split that cuts through a document lets the search learn on
what it is later judged by. So whole groups move together.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from optimize.data.dataset import normalized_question
from optimize.data.example import Example
from programs.errors import RagwrightError
from programs.headings import headings
from programs.types import Document, Span

FEW_DOCUMENTS = 20
"""Below this many source documents a group is a section of a document, not the whole of it."""

SHARES = {"train": 0.3, "validation": 0.3, "test": 0.4}
_BLANK_LINE = re.compile(r"\n\s*\n")


def group_examples(examples: Sequence[Example], documents: Mapping[str, Document]) -> dict[str, str]:
    """Name the group of every example: those that share a source document, directly or through others, share one.

    A declared group stands by itself, whatever the evidence is.

    Args:
        examples: All examples of the data set, their ids unique. A part of it may have so few source documents that
            its groups would be smaller than they are in the whole.
        documents: The corpus by document id; only read where there are fewer than `FEW_DOCUMENTS` source documents.

    Returns:
        Example id -> group name. Without evidence the group is the declared one, else the question itself.
    """
    sources = {doc_id for example in examples for doc_id in example.documents}
    sections = {i: _section_starts(documents[i].text) for i in sources} if len(sources) < FEW_DOCUMENTS else None
    parent: dict[str, str] = {}
    anchor: dict[str, str] = {}
    for example in examples:
        keys = _keys(example, sections)
        anchor[example.id] = keys[0]
        for key in keys:
            parent.setdefault(key, key)
            parent[_root(parent, key)] = _root(parent, keys[0])
    return {example_id: _root(parent, key) for example_id, key in anchor.items()}


def _keys(example: Example, sections: Mapping[str, list[int]] | None) -> list[str]:
    """What an example shares with others; `sections` are the section starts of each document, if sections count."""
    if example.group:
        return [f"group:{example.group}"]
    spans = [place.span for fact in example.evidence for place in fact]
    if not spans:
        return [f"question:{normalized_question(example.question)}"]
    if sections is None:
        return sorted({f"document:{span.doc_id}" for span in spans})
    return sorted({f"section:{span.doc_id}@{start}" for span in spans for start in _begun(span, sections[span.doc_id])})


def _begun(span: Span, starts: Sequence[int]) -> Sequence[int]:
    """Starts of the sections that a span lies in: mostly one."""
    return starts[bisect_right(starts, span.start) - 1 : bisect_left(starts, span.end)]


def _section_starts(text: str) -> list[int]:
    """Where the sections of a text begin: at its headings; without headings, at its paragraphs."""
    starts = [heading.start for heading in headings(text)] or [match.end() for match in _BLANK_LINE.finditer(text)]
    return sorted({0, *starts})


def _root(parent: dict[str, str], key: str) -> str:
    while parent[key] != key:
        parent[key] = parent[parent[key]]
        key = parent[key]
    return key


def split_examples(
    examples: Iterable[Example],
    documents: Mapping[str, Document],
    seed: int,
    shares: Mapping[str, float] = SHARES,
    groups: Mapping[str, str] | None = None,
) -> dict[str, list[Example]]:
    """Deal whole groups into splits, the largest first, each to the split that lacks most of its share.

    Questions that are the same but for case, punctuation and spacing are kept once, the first of them. No split stays
    empty.

    Args:
        examples: What to split.
        documents: The corpus by document id.
        seed: Orders groups of the same size.
        shares: Split -> share of the questions.
        groups: Example id -> group, where `examples` are a part of a data set whose groups are known.

    Raises:
        RagwrightError: There are fewer groups than splits, or two examples have the same id.
    """
    unique = distinct_questions(examples)
    if repeated := [i for i, count in Counter(example.id for example in unique).items() if count > 1]:
        raise RagwrightError(
            f"{len(repeated)} id(s) are used more than once, {repeated[0]!r} among them; make ids unique."
        )
    piles = _by_group(unique, group_examples(unique, documents) if groups is None else groups)
    if len(piles) < len(shares):
        raise RagwrightError(
            f"the questions come from {len(piles)} independent part(s) of the corpus and {len(shares)} splits need "
            "one each: ask questions about more documents, or declare a 'group' for each question."
        )
    random.Random(seed).shuffle(piles)
    piles.sort(key=len, reverse=True)
    splits: dict[str, list[Example]] = {name: [] for name in shares}
    for left, pile in zip(range(len(piles), 0, -1), piles, strict=True):
        empty = [name for name in shares if not splits[name]]
        open_splits = empty if len(empty) == left else shares
        splits[max(open_splits, key=lambda name: shares[name] * len(unique) - len(splits[name]))] += pile
    return splits


def distinct_questions(examples: Iterable[Example]) -> list[Example]:
    """The examples without those whose question, normalized, was asked before."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(normalized_question(example.question), example)
    return list(first.values())


def _by_group(examples: Iterable[Example], names: Mapping[str, str]) -> list[list[Example]]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[names[example.id]].append(example)
    return [groups[name] for name in sorted(groups)]


def balanced_order(examples: Sequence[Example], groups: Mapping[str, str], seed: int) -> list[Example]:
    """Order examples so that every prefix is spread over as many groups as it can be.

    All trials look at the examples in this one order, so that partial results are about the same questions.
    """
    generator = random.Random(seed)
    piles = _by_group(examples, groups)
    generator.shuffle(piles)
    for pile in piles:
        generator.shuffle(pile)
    depth = max((len(pile) for pile in piles), default=0)
    return [pile[level] for level in range(depth) for pile in piles if level < len(pile)]
