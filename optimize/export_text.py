"""The export's page for people: what the prompt says, and how to use it from plain DSPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optimize.headline import headline
from optimize.outcome import Entry, Outcome

if TYPE_CHECKING:
    import dspy

    from optimize.export import Prompt
    from programs.lm import LMSpec

ADAPTERS = {
    "compact": "CompactAdapter()",
    "chat": "dspy.ChatAdapter(use_json_adapter_fallback=False)",
    "json": "dspy.JSONAdapter()",
    "xml": "dspy.XMLAdapter(use_json_adapter_fallback=False)",
}
"""Prompt format -> the expression that makes it in plain DSPy."""

LLAMA_SERVER = "http://127.0.0.1:8080/v1"
"""Where llama.cpp's server listens unless told otherwise."""


def explain(outcome: Outcome, winner: Entry, spec: LMSpec, program: dspy.Module, prompts: Sequence[Prompt]) -> str:
    """The text of `prompt.md`."""
    lines = [
        f"# {outcome.study}: the winner",
        "",
        headline(outcome).sentence,
        "",
        f"Made for {outcome.lm}. Prompts are tuned to a model: measure again before using them with another.",
        "",
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in winner.params.items()),
        f"- temperature: {spec.temperature}",
        f"- max_tokens: {spec.max_tokens}",
        "",
    ]
    for name, predictor in program.named_predictors():
        lines += _predictor(name, predictor)
    lines += _usage(winner, spec, program, prompts)
    return "\n".join(lines) + "\n"


def _predictor(name: str, predictor: Any) -> Iterator[str]:
    signature = predictor.signature
    yield from (f"## Predictor `{name}`", "", f"`{_shape(signature)}`", "", "Instructions:", "")
    yield from _fenced(signature.instructions)
    for number, demo in enumerate(predictor.demos, start=1):
        yield from (f"Demo {number}:", "")
        yield from _fenced("\n".join(f"{field}: {_text(demo[field])}" for field in signature.fields if field in demo))
    if not predictor.demos:
        yield from ("No demos.", "")


def _shape(signature: Any) -> str:
    def sides(fields: Any) -> str:
        return ", ".join(f"{n}: list[str]" if f.annotation == list[str] else n for n, f in fields.items())

    return f"{sides(signature.input_fields)} -> {sides(signature.output_fields)}"


def _text(value: Any) -> str:
    return "\n".join(f"- {item}" for item in value) if isinstance(value, list | tuple) else str(value)


def _fenced(text: str) -> Iterator[str]:
    """The text between fences longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    yield from (f"{fence}text", text, fence, "")


def _usage(winner: Entry, spec: LMSpec, program: dspy.Module, prompts: Sequence[Prompt]) -> Iterator[str]:
    compact = winner.config.prompt_format == "compact"
    bare = any(prompt.stop is not None for prompt in prompts)
    predictors = list(program.named_predictors())
    yield from ("## Use it from plain DSPy", "", "`program.json` is DSPy's own state; no other package is needed.", "")
    yield from ("```python", "import dspy")
    if compact:
        yield f"from compact_adapter import CompactAdapter{', CompletionEngine' if bare else ''}"
    if all(name.isidentifier() for name, _ in predictors):
        yield from ("", "", "class Program(dspy.Module):", "    def __init__(self):", "        super().__init__()")
        yield from (f'        self.{name} = dspy.Predict("{_shape(p.signature)}")' for name, p in predictors)
        yield from ("", "", "program = Program()")
    else:
        yield "program = ...  # your own module, with the same predictors"
    yield 'program.load("program.json")'
    yield from _lm_lines(spec, bare)
    yield f"dspy.configure(lm=lm, adapter={ADAPTERS[winner.config.prompt_format]})"
    name, predictor = predictors[-1]
    inputs = ", ".join(f"{n}=[...]" if n == "context" else f'{n}="..."' for n in predictor.signature.input_fields)
    yield from (f"print(program.{name}({inputs}))", "```", "", "## Use it without DSPy", "")
    yield from _files(prompts)


def _lm_lines(spec: LMSpec, bare: bool) -> Iterator[str]:
    """The LM as plain DSPy opens it; a model that ran in process needs a server there."""
    from programs.remote_lm import public_address

    sampling = {"temperature": spec.temperature, "max_tokens": spec.max_tokens}
    settings = "".join(f", {name}={value}" for name, value in sampling.items() if value is not None)
    named = public_address(spec.api_base) if spec.api_base else None
    address = LLAMA_SERVER if spec.is_local else named
    if spec.is_local:
        yield "# a server for the model that ran in process, such as: llama-server -m model.gguf"
    if bare:
        yield f'engine = CompletionEngine("{spec.model}", "{address}", None, {spec.timeout_s:g})'
        yield f'lm = dspy.LM("{spec.model}", engine=engine{settings})'
        yield "lm.bare_completions = True"
        return
    model = "openai/local" if spec.is_local else spec.model
    place = f', api_base="{address}"' if address else ""
    yield f'lm = dspy.LM("{model}"{place}{settings})'


def _files(prompts: Sequence[Prompt]) -> Iterator[str]:
    if any(prompt.stop is None for prompt in prompts):
        yield (
            "`messages.json` holds the chat messages of each predictor; replace placeholders such as `{{question}}`."
        )
    if any(prompt.stop is not None for prompt in prompts):
        yield (
            "`prompt.txt` (or `prompt-<predictor>.txt`) is the text to send to a `/completions` address, with the "
            "placeholders such as `{{question}}` replaced; `manifest.json` says where to stop. Passages stand on lines "
            "of their own."
        )
