"""The export's page for people: what the prompt says, and how to use it from plain DSPy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.headline import headline
from programs.remote_lm import NO_KEY

if TYPE_CHECKING:
    import dspy

    from optimize.exporting.record import Prompt
    from programs.lm import LMSpec

ADAPTERS = {
    "compact": "CompactAdapter()",
    "chat": "dspy.ChatAdapter(use_json_adapter_fallback=False)",
    "json": "dspy.JSONAdapter()",
    "xml": "dspy.XMLAdapter(use_json_adapter_fallback=False)",
}
"""Prompt format -> the expression that makes it in plain DSPy."""

SHOWN = {
    "compact": "passages stand on lines of their own, whitespace inside a text is one space, an empty text leaves none",
    "chat": "passages stand there as a JSON list, other texts as they are",
    "json": "passages stand there as a JSON list, other texts as they are",
    "xml": "passages stand there as a JSON list, other texts as they are",
}
"""Prompt format -> how an input stands in the prompt."""

_NO_KEY = f'"{NO_KEY}"'

LLAMA_SERVER = "http://127.0.0.1:8080/v1"
"""Where llama.cpp's server listens unless told otherwise."""


def explain(
    outcome: Outcome,
    winner: Entry,
    spec: LMSpec,
    program: dspy.Module,
    prompts: Sequence[Prompt],
    examples: Sequence[Mapping[str, Any]],
) -> str:
    """The text of `prompt.md`; the first of the worked examples is shown in full."""
    sampling = {"temperature": spec.temperature, "max_tokens": spec.max_tokens}
    settings = {name: value for name, value in {**winner.params, **sampling}.items() if value not in ("", None)}
    lines = [
        f"# {outcome.study}: the winner",
        "",
        headline(outcome).sentence,
        "",
        f"Made for {outcome.lm}. Prompts are tuned to a model: measure again before using them with another.",
        "",
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in settings.items()),
        "",
    ]
    for name, predictor in program.named_predictors():
        lines += _predictor(name, predictor)
    if examples:
        lines += _worked(examples[0])
    lines += _usage(winner, spec, program, prompts)
    return "\n".join(lines) + "\n"


def _predictor(name: str, predictor: Any) -> Iterator[str]:
    signature = predictor.signature
    yield from (f"## Predictor `{name}`", "", f"`{_shape(signature)}`", "", "Instructions:", "")
    yield from _fenced(signature.instructions)
    for number, demo in enumerate(predictor.demos, start=1):
        yield from (f"Demo {number}:", "")
        yield from _fenced("\n".join(f"{field}:{_text(demo[field])}" for field in signature.fields if field in demo))
    if not predictor.demos:
        yield from ("No demos.", "")


def _shape(signature: Any) -> str:
    """The signature as DSPy reads it from a string."""
    from dspy.adapters.utils import get_annotation_name

    def sides(fields: Any) -> str:
        kinds = {name: get_annotation_name(field.annotation) for name, field in fields.items()}
        return ", ".join(name if kind == "str" else f"{name}: {kind}" for name, kind in kinds.items())

    return f"{sides(signature.input_fields)} -> {sides(signature.output_fields)}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "".join(f"\n[{number}] {item}" for number, item in enumerate(value, start=1))
    return f" {value}"


def _worked(example: Mapping[str, Any]) -> Iterator[str]:
    """One question as it went through, call by call."""
    yield from ("## A question, as it was sent", "", f"{example['question']}", "")
    for call in example["calls"]:
        sent = call.get("prompt") or "\n\n".join(f"<{m['role']}>\n{m['content']}" for m in call["messages"])
        yield from _fenced(sent)
        yield from (f"The LM replied to `{call['predictor']}`:", "")
        yield from _fenced(call["reply"])


def _fenced(text: str) -> Iterator[str]:
    """The text between fences longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    yield from (f"{fence}text", text, fence, "")


def _usage(winner: Entry, spec: LMSpec, program: dspy.Module, prompts: Sequence[Prompt]) -> Iterator[str]:
    predictors = list(program.named_predictors())
    yield from ("## Use it from plain DSPy", "", "`program.json` is DSPy's own state; no other package is needed.", "")
    yield from ("```python", *_dspy_lines(winner, spec, predictors, prompts), "```", "")
    yield from ("## Use it with an OpenAI client", "")
    yield from _client_lines(spec, prompts)
    yield from ("## Use it with nothing", "")
    yield from _files(prompts)
    yield from (
        "",
        "`manifest.json` holds worked examples: passages, what was sent for them, and the answer that came back. "
        f"`python fill.py {_address(spec) or 'ADDRESS'} {_served_model(spec)}` asks a server the same again.",
    )


def _dspy_lines(winner: Entry, spec: LMSpec, predictors: Sequence[Any], prompts: Sequence[Prompt]) -> Iterator[str]:
    compact = winner.config.prompt_format == "compact"
    engine = _engine(spec) if any(prompt.text is not None for prompt in prompts) else ""
    yield from (["import os", ""] if spec.api_key_env else [])
    yield "import dspy"
    if compact:
        yield f"from compact_adapter import CompactAdapter{f', {engine}' if engine else ''}"
    if all(name.isidentifier() for name, _ in predictors):
        yield from ("", "", "class Program(dspy.Module):", "    def __init__(self):", "        super().__init__()")
        yield from (f'        self.{name} = dspy.Predict("{_shape(p.signature)}")' for name, p in predictors)
        yield from ("", "", "program = Program()")
    else:
        yield "program = ...  # your own module, with the same predictors"
    yield 'program.load("program.json")'
    yield from _lm_lines(spec, engine)
    yield f"dspy.configure(lm=lm, adapter={ADAPTERS[winner.config.prompt_format]})"
    name, predictor = predictors[-1]
    inputs = ", ".join(f"{n}=[...]" if n == "context" else f'{n}="..."' for n in predictor.signature.input_fields)
    yield f"print(program.{name}({inputs}))"


def _engine(spec: LMSpec) -> str:
    return "LlamaCompletionEngine" if spec.is_local else "CompletionEngine"


def _lm_lines(spec: LMSpec, engine: str) -> Iterator[str]:
    """The LM as plain DSPy opens it; a model that ran in process needs a server there."""
    sampling = {"temperature": spec.temperature, "max_tokens": spec.max_tokens}
    # DSPy's own cache does not tell one server from another.
    settings = "".join(f", {name}={value}" for name, value in sampling.items() if value is not None) + ", cache=False"
    address, key = _address(spec), f'os.environ["{spec.api_key_env}"]' if spec.api_key_env else None
    if spec.is_local:
        yield "# a server for the model that ran in process, such as: llama-server -m model.gguf -np 1"
    if engine:
        model = _served_model(spec)
        yield f'engine = {engine}("{model}", "{address}", {key}, {spec.timeout_s:g})'
        yield f'lm = dspy.LM("{model}", engine=engine{settings})'
        yield "lm.bare_completions = True"
        return
    model = "openai/local" if spec.is_local else spec.model
    place = f', api_base="{address}", api_key={key or _NO_KEY}' if address else ""
    yield f'lm = dspy.LM("{model}"{place}{settings})'


def _client_lines(spec: LMSpec, prompts: Sequence[Prompt]) -> Iterator[str]:
    """With the openai package; what to call and where the text is differ between the two kinds of endpoint."""
    last = prompts[-1]
    named = f'"{last.predictor}", ' if len(prompts) > 1 else ""
    inputs = ", ".join(f"{n}=[...]" if n == "context" else f'{n}="..."' for n in last.inputs)
    method, text = ("chat.completions", "message.content") if last.text is None else ("completions", "text")
    key = f', api_key=os.environ["{spec.api_key_env}"]' if spec.api_key_env else f", api_key={_NO_KEY}"
    address = _address(spec)
    yield from ("`fill.py` fills the prompt exactly as the study did, and reads the reply.", "", "```python")
    yield from (["import os", ""] if spec.api_key_env else [])
    yield from ("from fill import read, request", "from openai import OpenAI", "")
    yield f'client = OpenAI(base_url="{address}"{key})' if address else "client = OpenAI()"
    yield f"body = request({named}{inputs})"
    yield f'reply = client.{method}.create(model="{_served_model(spec)}", **body)'
    yield f"print(read(reply.choices[0].{text}{f', {named[:-2]}' if named else ''}))"
    yield from ("```", "")


def _address(spec: LMSpec) -> str | None:
    from programs.remote_lm import public_address

    if spec.is_local:
        return LLAMA_SERVER
    return public_address(spec.api_base) if spec.api_base else None


def _served_model(spec: LMSpec) -> str:
    """The model's name on its server."""
    return "local" if spec.is_local else spec.model.partition("/")[2] or spec.model


def _files(prompts: Sequence[Prompt]) -> Iterator[str]:
    if any(prompt.text is None for prompt in prompts):
        yield "`messages.json` holds the chat messages of each predictor, with placeholders such as `{{question}}`."
    else:
        yield "`prompt.txt` (or `prompt-<predictor>.txt`) is the text to send to a `/completions` address."
    for prompt in prompts:
        yield f"Beside the model's name, `{prompt.predictor}` is sent with `{json.dumps(dict(prompt.settings))}`."
    if any("extra_body" in prompt.settings for prompt in prompts):
        yield "In plain HTTP the content of `extra_body` belongs into the body itself; llama.cpp's server knows it."
    yield (
        "A placeholder such as `{{question}}` is its last occurrence; "
        f"{SHOWN[prompts[0].prompt_format]}. `fill.py` does all of it in any Python."
    )
