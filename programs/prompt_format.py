"""How a signature, its demos and its inputs become a prompt, and an answer becomes fields again: DSPy adapters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dspy
from dspy.adapters.utils import parse_value, serialize_for_json
from dspy.utils.exceptions import AdapterParseError

from programs.completion import BARE


class CompactAdapter(dspy.Adapter):
    """Few tokens and no ceremony: the instructions, `Label: value` lines, and the label of the answer to be written.

        Answer the question from the context.

        Context: The tower was finished in 1889.
        Question: When was it finished?
        Answer:

    Demos stand between the instructions and the inputs in the same shape. A label is the field's name. All of it is one
    user message. An LM that takes bare completions (its `bare_completions` is true) gets the text as it is and stops at
    the end of the line, or at the blank line where the signature has several outputs; a chat model answers as it likes,
    and the first line counts. Saying nothing is an answer too: the empty one.
    """

    def format(
        self, signature: type[dspy.Signature], demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[dict[str, str]]:
        """The prompt as one user message. A demo without any output is left out; missing fields leave no line."""
        shown = [
            _lines(demo, signature.fields)
            for demo in demos
            if any(_has(demo, name) for name in signature.output_fields)
        ]
        asked = [*_lines(inputs, signature.input_fields), f"{_label(next(iter(signature.output_fields)))}:"]
        blocks = [signature.instructions.strip(), *("\n".join(lines) for lines in (*shown, asked))]
        return [{"role": "user", "content": "\n\n".join(block for block in blocks if block)}]

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """The output fields of an answer.

        The first output needs no label, since the prompt ends with it. The last one is a single line.

        Raises:
            AdapterParseError: A later output has no label in the answer, or a value is not of its field's type.
        """
        names = list(signature.output_fields)
        found = _sections(completion, names)
        if missing := [name for name in names if name not in found]:
            raise _unreadable(signature, completion, f"{_label(missing[0])}: is missing")
        found[names[-1]] = _first_line(found[names[-1]])
        values = {}
        for name, field in signature.output_fields.items():
            try:
                values[name] = parse_value(_one_line(found[name]), field.annotation)
            except ValueError as error:
                raise _unreadable(signature, completion, f"{_label(name)}: {error}") from None
        return values

    def _call_preprocess(
        self, lm: Any, lm_kwargs: dict[str, Any], signature: type[dspy.Signature], inputs: dict[str, Any]
    ) -> type[dspy.Signature]:
        if getattr(lm, "bare_completions", False):
            lm_kwargs.update(BARE, stop=["\n\n" if len(signature.output_fields) > 1 else "\n"])
        processed: type[dspy.Signature] = super()._call_preprocess(lm, lm_kwargs, signature, inputs)
        return processed

    def _call_postprocess(
        self, processed: Any, original: Any, outputs: list[Any], lm: Any, lm_kwargs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        # DSPy refuses an empty text before it reaches `parse`; a space passes and is stripped there.
        outputs = [output or " " if isinstance(output, str | None) else output for output in outputs]
        values: list[dict[str, Any]] = super()._call_postprocess(processed, original, outputs, lm, lm_kwargs)
        return values


FORMATS: dict[str, Callable[[], dspy.Adapter]] = {
    "compact": CompactAdapter,
    # On an answer that does not parse, DSPy would ask a second time, as JSON: a call that nobody ordered.
    "chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter,
    "xml": lambda: dspy.XMLAdapter(use_json_adapter_fallback=False),
}
"""Prompt formats by name. None of them makes more than one call per prediction."""


def render(
    adapter: dspy.Adapter,
    signature: type[dspy.Signature],
    demos: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The messages that an LM is sent.

    Args:
        adapter: A prompt format.
        signature: A predictor's signature, with its instructions.
        demos: The predictor's demos.
        inputs: Its inputs; None: a placeholder `{{name}}` for each.
    """
    if inputs is None:
        inputs = {name: f"{{{{{name}}}}}" for name in signature.input_fields}
    messages: list[dict[str, Any]] = adapter.format(signature, demos=list(demos), inputs=dict(inputs))
    return messages


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _has(values: Mapping[str, Any], name: str) -> bool:
    return name in values and values[name] is not None


def _lines(values: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{_label(name)}: {_text(values[name])}".rstrip() for name in names if _has(values, name)]


def _text(value: Any) -> str:
    """A value as the prompt shows it: items of a list on lines of their own, whitespace inside a text as one space."""
    if isinstance(value, str):
        return _one_line(value)
    if isinstance(value, list | tuple):
        return "\n".join(_text(item) for item in value)
    plain = serialize_for_json(value)
    return _one_line(plain) if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _sections(completion: str, names: Sequence[str]) -> dict[str, str]:
    """Output name -> the text behind its label; what stands before the first label belongs to the first output."""
    labels = {_label(name).lower(): name for name in names}
    # Chat models like to write labels in bold.
    pattern = rf"^[ \t*_#>-]*({'|'.join(map(re.escape, labels))})[ \t*_]*:[ \t*_]*"
    marks = list(re.finditer(pattern, completion, re.IGNORECASE | re.MULTILINE))
    ends = [mark.start() for mark in marks[1:]] + [len(completion)]
    found: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=False):
        found.setdefault(labels[mark[1].lower()], completion[mark.end() : end])
    found.setdefault(names[0], completion[: marks[0].start()] if marks else completion)
    return found


def _unreadable(signature: type[dspy.Signature], completion: str, problem: str) -> AdapterParseError:
    return AdapterParseError("CompactAdapter", signature, completion, message=problem)
