"""What is known of a configuration before the LM is asked anything: its retrieval, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from optimize.compiling.candidate import Candidate
from optimize.data.example import Example
from optimize.screening.screen import Screen
from optimize.searching.belief import Floats
from programs.config import PipelineConfig
from programs.prefix import NEEDS_LM as PREFIXES_WITH_LM
from programs.reranking import NEEDS_LM as RERANKERS_WITH_LM

USUAL_TOKENS = 256
"""Context tokens at which the signal of length is 0."""

AROUND = 40
"""Prompt tokens beside the passages: question, labels, a share of the instructions."""


class Foresight:
    """Foresees what retrieval will hand to the LM.

    Args:
        screen: Scores retrieval; None where no question has evidence: then nothing is foreseen but lengths.
    """

    def __init__(self, screen: Screen | None) -> None:
        self._screen = screen
        self._places = {e.id: place for place, e in enumerate(screen.examples)} if screen is not None else {}

    def signals(self, config: PipelineConfig, examples: Sequence[Example]) -> Floats:
        """The screen's measure and the length of the context (log2, 0 at `USUAL_TOKENS`); questions x 2.

        A question without evidence is expected to fare as the others do.
        """
        length = np.full(len(examples), np.log2(max(1.0, self.context_tokens(config)) / USUAL_TOKENS) / 4)
        if self._screen is None:
            return length[:, None]
        point = self._screen.points.score(_without_lm(config))
        places = [self._places.get(example.id) for example in examples]
        quality = [point.quality if place is None else point.scores[place] for place in places]
        return np.stack([np.array(quality), length], axis=1)

    def context_tokens(self, config: PipelineConfig) -> float:
        """Mean tokens of the passages of a question."""
        if self._screen is None:
            return float(config.chunk_size * config.top_k)
        return self._screen.points.score(_without_lm(config)).tokens

    def prompt_tokens(self, config: PipelineConfig, candidate: Candidate) -> float:
        """Roughly the prompt tokens of a question: each demo shows as many passages as the question itself."""
        context = self.context_tokens(config)
        return sum((context + AROUND) * (1 + len(prompt.demos)) for prompt in candidate.prompts.values())


def _without_lm(config: PipelineConfig) -> PipelineConfig:
    """What an LM would add to retrieval cannot be foreseen without it."""
    reranker = "none" if config.reranker in RERANKERS_WITH_LM else config.reranker
    prefix = "none" if config.context_prefix in PREFIXES_WITH_LM else config.context_prefix
    return replace(config, reranker=reranker, context_prefix=prefix).canonical()
