"""How the reflection LM is asked: in chat, whatever prompt format the task LM is compiled for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from optimize.compiling.tally import TalliedEngine, Tally

MOST_CHARACTERS = 12_000
"""What the inputs of one request for an instruction may have together. An optimizer shows whole passages several times
over; a small model's context does not hold them, and a large one's user pays for them."""

CUT = " [...] "


class FormatByRole:
    """The task LM is asked in the format of the study, the reflection LM in chat.

    Optimizers run their own small programs in the same DSPy context as the program that they compile. Which of the two
    is asking shows in the LM that it asks, so the format goes by that, and no optimizer needs to be told.

    Args:
        task: The format that prompts are compiled for.
        reflection: The format of everything else.
    """

    def __init__(self, task: dspy.Adapter, reflection: dspy.Adapter) -> None:
        self.task, self.reflection = task, reflection

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # A program may ask its prompt format to render something, as DSPy's agents do.
        return getattr(self.task, name)

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """Ask in the format of the LM's role."""
        engine = getattr(lm, "engine", None)
        reflects = isinstance(engine, TalliedEngine) and engine.role == "reflection"
        return (self.reflection if reflects else self.task)(lm, lm_kwargs, signature, demos, inputs)


class ProposalAdapter(dspy.ChatAdapter):
    """DSPy's chat format, with inputs of bounded length, and patient with models that answer in plain prose.

    An answer without a single field marker is taken as it is, for each field that is text. A proposal that is no good
    costs the calls that show it, no more.

    Args:
        tally: Counts the answers that can be read.
    """

    def __init__(self, tally: Tally) -> None:
        # On an answer that does not parse, DSPy would ask a second time, as JSON: a call that nobody ordered.
        super().__init__(use_json_adapter_fallback=False)
        self._tally = tally

    def __deepcopy__(self, memo: dict[int, Any]) -> ProposalAdapter:
        return self

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """Ask, and count what could be read."""
        fields = super().__call__(lm, lm_kwargs, signature, demos, inputs)
        self._tally.understood()
        return fields

    def format(self, signature: Any, demos: Any, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages, long inputs cut in the middle."""
        messages: list[dict[str, Any]] = super().format(signature, demos, shorten(inputs, MOST_CHARACTERS))
        return messages

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The output fields.

        Raises:
            AdapterParseError: The answer is empty, lacks a field, or has one of a wrong type.
        """
        try:
            fields: dict[str, Any] = super().parse(signature, completion)
            return fields
        except AdapterParseError:
            text = completion.strip()
            plain = all(field.annotation is str for field in signature.output_fields.values())
            if not text or not plain or re.search(r"\[\[ ## \w+ ## ]]", text):
                raise
        return dict.fromkeys(signature.output_fields, text)


def shorten(values: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The values with their longest texts cut in the middle, all to one length, so that all have `most` characters.

    Args:
        values: Texts, and lists and mappings that hold texts; anything else stays as it is.
        most: Characters, without the marks of the cuts.
    """
    lengths = sorted(map(len, _texts(values)))
    limit, room = (lengths[-1] if lengths else 0), most
    if sum(lengths) > most:
        for place, length in enumerate(lengths):
            limit = room // (len(lengths) - place)
            if length > limit:
                break
            room -= length
    return {name: _cut(value, limit) for name, value in values.items()}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        head = (2 * limit + 2) // 3
        return value if len(value) <= limit else value[:head] + CUT + value[len(value) - (limit - head) :]
    if isinstance(value, Mapping):
        return {name: _cut(item, limit) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, limit) for item in value]
    return value
