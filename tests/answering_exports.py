"""Exports over a small made-up data set, and a program that goes wrong when it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy

from optimize.compiling.candidate import Candidate, PredictorPrompt, apply_candidate
from optimize.exporting.export import export_winner
from optimize.settings.study import StudyConfig
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.lm import parse_lm
from programs.rag import RAG, SearchCall
from programs.search import open_search
from tests.outcomes import WINNER, Studied

CANARY = "sk-canary-0123456789"
"""A key that must be nowhere."""

QUESTION = "When was the tower test 7 built?"
"""Its answer is 1807."""


def export_for(
    studied: Studied,
    folder: Path,
    lm: Mapping[str, Any],
    config: PipelineConfig = WINNER,
    program: str = "rag",
) -> Path:
    """The winner of a study made by hand, exported for an LM."""
    built = build_program(program, open_search(studied.run.path.parent, studied.dataset.corpus, config))
    names = [name for name, _ in built.named_predictors()]
    apply_candidate(built, Candidate({name: PredictorPrompt("Answer from the context.", ()) for name in names}), {})
    assert studied.outcome.winner is not None
    outcome = replace(studied.outcome, winner=replace(studied.outcome.winner, config=config))
    study = StudyConfig(name="towers", dataset=str(studied.dataset.path), program=program)
    return export_winner(outcome, study, parse_lm(lm), studied.dataset, built, folder)


class Fragile(RAG):
    """Fails on questions that say so, with a secret in the error."""

    def forward(self, question: str) -> dspy.Prediction:
        if "please fail" in question:
            raise RuntimeError("sk-canary-in-a-program at /home/somebody/program.py")
        return super().forward(question)


def fragile(search: SearchCall) -> dspy.Module:
    return Fragile(search)


def read_towers(body: dict[str, Any]) -> str:
    """Answer the last question of a prompt with the year in its passages; the model of an `OpenAIServer`."""
    prompt = body.get("prompt") or "\n".join(str(message["content"]) for message in body["messages"])
    years = [word.strip(".") for word in prompt.split() if word.strip(".").isdigit() and word.startswith("18")]
    answer = years[-1] if years else "nobody knows"
    if "[[ ## " in prompt:
        return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    return answer
