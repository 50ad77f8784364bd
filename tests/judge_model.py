"""A model that judges: it reads MLflow's and DSPy's judge prompts and answers by looking for words."""

from __future__ import annotations

import json
import re
from typing import Any

from programs.types import Chunk, Passage, Span


def judge(body: dict[str, Any]) -> str:
    """Say yes where the claim stands in the document; what speaks of weather is off the subject, bombs are unsafe."""
    prompt = str(body["messages"][-1]["content"])
    if "[[ ## " in prompt:
        return _dspy(prompt)
    if "content safety" in prompt:
        return rating("bomb" not in _tag(prompt, "text"), "bombs hurt")
    if "<document>" not in prompt:
        return rating("weather" not in _tag(prompt, "answer"), "that is the weather")
    claim = _tag(prompt, "answer") if "<answer>" in prompt else _tag(prompt, "claim")
    return rating(claim.lower() in _tag(prompt, "document").lower(), f"looked for {claim!r}")


def rating(yes: bool, why: str) -> str:
    """A reply as MLflow's prompts ask for it."""
    return json.dumps({"rationale": f"Let's think step by step. {why}", "result": "yes" if yes else "no"})


def fields(**values: object) -> str:
    """A reply as DSPy's chat format asks for it."""
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**values, "completed": ""}.items())


def passage(text: str) -> Passage:
    """A passage that somebody retrieved."""
    return Passage(Chunk("d#0-9", Span("d", 0, max(1, len(text))), text), 1.0)


def _dspy(prompt: str) -> str:
    inputs = re.findall(r"\[\[ ## (\w+) ## \]\]\n(.*?)\n\n(?=\[\[|Respond)", prompt, re.DOTALL)
    said = {name: text.strip() for name, text in inputs}
    answer = said["system_response"].lower()
    thought = {"reasoning": "looked closely", "discussion": "discussed at length"}
    if "retrieved_context" in said:
        return fields(
            **thought, system_response_claims=answer, groundedness=float(answer in said["retrieved_context"].lower())
        )
    covered = float(said["ground_truth"].lower() in answer)
    if "completeness" in prompt:
        ideas = {"ground_truth_key_ideas": "one", "system_response_key_ideas": "two"}
        return fields(**thought, **ideas, completeness=covered)
    return fields(**thought, recall=covered, precision=covered)


def _tag(prompt: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", prompt, re.DOTALL)
    assert found is not None, f"no <{name}> in {prompt!r}"
    return found[1]
