from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optimize.screening.served import agreement
from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.search import open_search
from programs.types import Document

WORDS = ["harbour", "ship", "quay", "crane", "anchor", "tide", "lighthouse", "sail", "rope", "storm", "cargo", "map"]
CORPUS = Corpus.from_documents(Document(f"{n:03}", f"The {WORDS[n % 12]} number {n}.") for n in range(60))
CONFIG = PipelineConfig(chunk_size=32, top_k=5)


def test_served_search_agrees_with_the_exact_one(tmp_path: Path) -> None:
    exact, served = (open_search(tmp_path, CORPUS, CONFIG, served=served) for served in (False, True))
    assert not exact.index.served and served.index.served
    assert agreement(exact, served, [f"Where is the {word}?" for word in WORDS]) >= 0.99


def test_agreement_is_the_share_that_both_find(tmp_path: Path) -> None:
    exact = open_search(tmp_path, CORPUS, CONFIG)

    class Worse:
        def retrieve(self, questions, k):  # type: ignore[no-untyped-def]
            found = exact.retriever.retrieve(questions, k)
            return [replace(r, positions=np.where(np.arange(len(r)) < 2, -1, r.positions)) for r in found]

    worse = replace(exact, retriever=Worse())
    assert agreement(exact, worse, ["Where is the crane?", "Which storm?"]) == pytest.approx(3 / 5)
