"""A candidate: one compiled variant of a program's prompts, independent of the pipeline it will run in.

A demo is kept as an example's id and the outputs it shows. Its passages are retrieved again under each
configuration, so that a demo made with long passages does not weigh down a configuration of short ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optimize.data.example import Example
from programs.config import fingerprint

if TYPE_CHECKING:
    import dspy

BARE = "bare"
"""The optimizer name of the program as written: its own instructions, no demos."""


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration for one predictor.

    Attributes:
        example_id: The training example it shows.
        outputs: Output field -> text.
    """

    example_id: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PredictorPrompt:
    """What compiling decides for one predictor."""

    instructions: str
    demos: tuple[Demo, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One compiled variant.

    Attributes:
        prompts: Predictor name -> its prompt.
        optimizer: What made it.
        params: The optimizer's parameters.
        parents: Ids of the candidates it was made from; none for one that was made from the bare program.
        calls: Role (`task`, `reflection`) -> LM calls since the optimizer's candidate before it.
    """

    prompts: Mapping[str, PredictorPrompt]
    optimizer: str = BARE
    params: Mapping[str, Any] | None = None
    parents: tuple[str, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Eight digits of what the prompts hold: equal prompts, equal digits."""
        return fingerprint({name: asdict(prompt) for name, prompt in self.prompts.items()})[:8]

    @property
    def id(self) -> str:
        """The optimizer's name and the digits of the content."""
        return f"{self.optimizer}-{self.content}"

    @property
    def demo_count(self) -> int:
        """Demos of all predictors."""
        return sum(len(prompt.demos) for prompt in self.prompts.values())

    def as_json(self) -> dict[str, Any]:
        """A JSON-serializable dictionary that `from_json` reads back."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read a candidate back."""
        prompts = {
            name: PredictorPrompt(prompt["instructions"], tuple(Demo(**demo) for demo in prompt["demos"]))
            for name, prompt in content["prompts"].items()
        }
        return cls(prompts, content["optimizer"], content["params"], tuple(content["parents"]), content["calls"])

    def save(self, folder: Path) -> None:
        """Write it as `<id>.json`."""
        text = json.dumps(self.as_json(), ensure_ascii=False, indent=1)
        (folder / f"{self.id}.json").write_text(text + "\n", encoding="utf-8")


def read_candidate(
    program: dspy.Module,
    examples: Mapping[str, Example],
    optimizer: str = BARE,
    params: Mapping[str, Any] | None = None,
    parents: tuple[str, ...] = (),
    calls: Mapping[str, int] | None = None,
) -> Candidate:
    """Take the prompts out of a program, with the demos that can be traced back to an example.

    Args:
        program: A compiled (or bare) program.
        examples: Training examples by question: the way back from a DSPy demo to its example.
        optimizer: What compiled it.
        params: With what.
        parents: From which candidates.
        calls: At what price, in LM calls by role.
    """
    prompts = {
        name: PredictorPrompt(predictor.signature.instructions, _read_demos(predictor, examples))
        for name, predictor in program.named_predictors()
    }
    return Candidate(prompts, optimizer, params, parents, dict(calls or {}))


def _read_demos(predictor: dspy.Predict, examples: Mapping[str, Example]) -> tuple[Demo, ...]:
    """A labeled demo knows some outputs only (no `reasoning`), and no demo without any output says anything."""
    demos = []
    for demo in predictor.demos:
        outputs = {name: str(demo[name]) for name in predictor.signature.output_fields if demo.get(name) is not None}
        # A program of a person's own may ask its predictors something else than the question.
        example = examples.get(str(demo.get("question")))
        if outputs and example is not None:
            demos.append(Demo(example.id, outputs))
    return tuple(demos)


def apply_candidate(program: dspy.Module, candidate: Candidate, examples: Mapping[str, Example]) -> None:
    """Put a candidate's prompts into a program, its demos with the passages that this program retrieves for them.

    Args:
        program: A program of the kind that the candidate was made for; changed in place.
        candidate: The prompts.
        examples: Training examples by id.
    """
    import dspy

    for name, predictor in program.named_predictors():
        prompt = candidate.prompts[name]
        predictor.signature = predictor.signature.with_instructions(prompt.instructions)
        predictor.demos = []
        for demo in prompt.demos:
            question = examples[demo.example_id].question
            inputs = _demo_inputs(program, name, question, demo.outputs)
            predictor.demos.append(dspy.Example(**inputs, **demo.outputs))


def _demo_inputs(program: dspy.Module, predictor: str, question: str, outputs: Mapping[str, str]) -> dict[str, Any]:
    """A person's own program may not say how its demos are fed; then a demo shows the question alone."""
    if hasattr(program, "demo_inputs"):
        return dict(program.demo_inputs(predictor, question, outputs))
    return {"question": question}
