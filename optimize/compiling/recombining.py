"""Crosses candidates: the instructions of one with the demos of another."""

from __future__ import annotations

from collections.abc import Sequence

from optimize.compiling.candidate import Candidate, PredictorPrompt

RECOMBINED = "recombined"
"""The optimizer name of a recombination."""


def recombine(candidates: Sequence[Candidate], most: int = 6) -> list[Candidate]:
    """New candidates from pairs of old ones, without an LM call.

    Args:
        candidates: Of one program, best first; the bare program may be among them.
        most: How many to make; those of the best parents come first.

    Returns:
        Candidates whose content is new, each with the parent of its instructions and the parent of its demos.
    """
    known = {candidate.content for candidate in candidates}
    places = range(len(candidates))
    pairs = sorted(((i, j) for i in places for j in places if i != j), key=lambda pair: (sum(pair), max(pair), pair))
    made: list[Candidate] = []
    for instructed, shown in pairs:
        if len(made) == most:
            break
        child = _cross(candidates[instructed], candidates[shown])
        if child.content not in known:
            known.add(child.content)
            made.append(child)
    return made


def _cross(instructed: Candidate, shown: Candidate) -> Candidate:
    assert instructed.prompts.keys() == shown.prompts.keys(), "both are of one program"
    prompts = {
        name: PredictorPrompt(prompt.instructions, shown.prompts[name].demos)
        for name, prompt in instructed.prompts.items()
    }
    return Candidate(prompts, RECOMBINED, {}, (instructed.id, shown.id))
