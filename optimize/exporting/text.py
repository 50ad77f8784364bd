"""The export's page for people: what the prompt says, and how to use it with DSPy, with a client, or with neither."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.headline import headline
from programs.remote_lm import NO_KEY, find_provider, public_address

if TYPE_CHECKING:
    import dspy

    from optimize.exporting.record import Prompt
    from programs.config import PipelineConfig
    from programs.lm import LMSpec

ADAPTERS = {
    "compact": "CompactAdapter()",
    "chat": "dspy.ChatAdapter(use_json_adapter_fallback=False)",
    "json": "dspy.JSONAdapter()",
    "xml": "dspy.XMLAdapter(use_json_adapter_fallback=False)",
}
"""Prompt format -> the expression that makes it in plain DSPy."""

SETTINGS = {
    "splitter": "how documents are cut into chunks",
    "chunk_size": "tokens in a chunk, at most",
    "chunk_overlap": "share of a chunk that the next one repeats",
    "context_prefix": "what a chunk is indexed with, beside its text",
    "embedder": "what turns texts into vectors",
    "retriever": "how chunks are found: `dense` by vectors, `sparse` by words (BM25), `hybrid` and `weighted` by both",
    "dense_weight": "what vectors weigh against words",
    "filter": "which documents are searched",
    "retrieve_k": "chunks that are found first",
    "reranker": "what then puts them in order",
    "cutoff": "what scores below this share, between the weakest and the best, is dropped",
    "top_k": "passages that the model is shown",
    "expansion": "how a passage is widened before",
}
"""Setting of the retrieval -> what it is."""

_NO_KEY = f'"{NO_KEY}"'

LLAMA_SERVER = "http://127.0.0.1:8080/v1"
"""Where llama.cpp's server listens unless told otherwise."""

UNKNOWN = "https://.../v1"


def explain(
    outcome: Outcome,
    winner: Entry,
    spec: LMSpec,
    program: dspy.Module,
    prompts: Sequence[Prompt],
    examples: Sequence[Mapping[str, Any]],
) -> str:
    """The text of `prompt.md`; the first of the worked examples is shown in full."""
    lines = [
        f"# {outcome.study}: the winner",
        "",
        headline(outcome).sentence,
        "",
        "A question is answered in two steps: passages that fit it are found in the documents, and a language model is "
        f"sent this prompt with them. It was made for {_model(spec)}; with another model, measure it again.",
        "",
    ]
    for (_, predictor), prompt in zip(program.named_predictors(), prompts, strict=True):
        lines += _predictor(predictor, prompt, alone=len(prompts) == 1)
    if examples:
        lines += _worked(examples[0])
    lines += _retrieval(winner.config)
    lines += _usage(winner, spec, program, prompts)
    if examples:
        lines += _proof(spec)
    return "\n".join(lines) + "\n"


def _model(spec: LMSpec) -> str:
    address = _address(spec)
    if spec.is_local:
        return (
            f"`{spec.weights().name}`, which ran in process: elsewhere `llama-server -m MODEL.gguf -np 1` serves it "
            "(with more slots than one the same prompt may get another answer)"
        )
    return f"`{_served_model(spec)}` at {address}" if address else f"`{spec.model}`"


def _predictor(predictor: Any, prompt: Prompt, alone: bool) -> Iterator[str]:
    signature = predictor.signature
    yield from ("## The prompt" if alone else f"## The prompt of `{prompt.predictor}`", "")
    yield f"What it is given and what it answers: `{_shape(signature)}`. `{prompt.file}` has it as it is sent."
    yield from ("", "Instructions:", "")
    yield from _fenced(signature.instructions)
    for number, demo in enumerate(predictor.demos, start=1):
        yield from (f"Demo {number}:", "")
        yield from _fenced("\n".join(f"{field}:{_text(demo[field])}" for field in signature.fields if field in demo))
    if not predictor.demos:
        yield from ("No demos.", "")


def _retrieval(config: PipelineConfig) -> Iterator[str]:
    """The settings that find the passages, without those that do nothing."""
    idle = {name for name in ("context_prefix", "embedder", "expansion", "reranker") if getattr(config, name) == "none"}
    idle |= {name for name in ("filter", "cutoff") if not getattr(config, name)}
    idle |= {"retrieve_k"} if {"reranker", "cutoff"} <= idle else set()
    idle |= {"dense_weight"} if config.retriever != "weighted" else set()
    yield from ("## How the passages were found", "", "| setting | value | what it is |", "|---|---|---|")
    for name, about in SETTINGS.items():
        if name not in idle:
            yield f"| {name} | {getattr(config, name)} | {about} |"
    yield ""


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
    yield from ("## Use it from plain DSPy", "")
    yield from (f"`pip install dspy=={version('dspy')}`. Run this in the folder of this page:", "")
    yield from ("```python", *_dspy_lines(winner, spec, predictors, prompts), "```", "")
    yield from ("## Use it with an OpenAI client", "")
    yield from _client_lines(spec, prompts)
    yield from ("## Use it with any Python", "")
    yield from _python_lines(spec, prompts)
    yield from ("## What is sent", "")
    yield from _sent(winner.config.prompt_format, prompts)


def _proof(spec: LMSpec) -> Iterator[str]:
    yield from ("", "## Is it right at its new place?", "")
    yield (
        "`manifest.json` holds worked examples: passages, what was sent for them, and what came back. This asks a "
        "server the same again and says whether the answers are the same:"
    )
    yield from ("", "```sh", f"python fill.py {_address(spec) or UNKNOWN} {_served_model(spec)}", "```")


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
    yield f"print(program.{predictors[-1][0]}({_inputs(prompts[-1])}))"


def _inputs(prompt: Prompt) -> str:
    """The arguments of a call, to be filled in."""
    return ", ".join(f"{name}=[...]" if name == "context" else f'{name}="..."' for name in prompt.inputs)


def _engine(spec: LMSpec) -> str:
    return "LlamaCompletionEngine" if spec.is_local else "CompletionEngine"


def _lm_lines(spec: LMSpec, engine: str) -> Iterator[str]:
    """The LM as plain DSPy opens it; a model that ran in process needs a server there."""
    sampling = {"temperature": spec.temperature, "max_tokens": spec.max_tokens}
    # DSPy's own cache does not tell one server from another.
    settings = "".join(f", {name}={value}" for name, value in sampling.items() if value is not None) + ", cache=False"
    if engine:
        model = _served_model(spec)
        yield f'engine = {engine}("{model}", "{_address(spec)}", {_key(spec)}, {spec.timeout_s:g})'
        yield f'lm = dspy.LM("{model}", engine=engine{settings})'
        yield "lm.bare_completions = True"
        return
    model = "openai/local" if spec.is_local else spec.model
    # DSPy knows its providers' addresses and where their keys are.
    place = f', api_base="{_address(spec)}"' if spec.is_local or spec.api_base else ""
    key = f", api_key={_key(spec) or _NO_KEY}" if place or spec.api_key_env else ""
    yield f'lm = dspy.LM("{model}"{place}{key}{settings})'


def _client_lines(spec: LMSpec, prompts: Sequence[Prompt]) -> Iterator[str]:
    """With the openai package; what to call and where the text is differ between the two kinds of endpoint."""
    last = prompts[-1]
    named = f'"{last.predictor}", ' if len(prompts) > 1 else ""
    method, text = ("chat.completions", "message.content") if last.text is None else ("completions", "text")
    yield from ("`pip install openai`. `fill.py` fills the prompt exactly as the study did, and reads the reply:", "")
    yield "```python"
    yield from (["import os", ""] if _key(spec) else [])
    yield from ("from fill import read, request", "from openai import OpenAI", "")
    yield f'client = OpenAI(base_url="{_address(spec) or UNKNOWN}", api_key={_key(spec) or _NO_KEY})'
    yield f"body = request({named}{_inputs(last)})"
    yield f'reply = client.{method}.create(model="{_served_model(spec)}", **body)'
    yield f"print(read(reply.choices[0].{text}{f', {named[:-2]}' if named else ''}))"
    yield from ("```", "")


def _python_lines(spec: LMSpec, prompts: Sequence[Prompt]) -> Iterator[str]:
    last = prompts[-1]
    named = f', "{last.predictor}"' if len(prompts) > 1 else ""
    key = f", key={_key(spec)}" if _key(spec) else ""
    yield from ("`fill.py` needs no package.", "", "```python")
    yield from (["import os", ""] if _key(spec) else [])
    yield from ("from fill import ask", "")
    yield f'print(ask("{_address(spec) or UNKNOWN}", "{_served_model(spec)}"{named}, {_inputs(last)}{key}))'
    yield from ("```", "")


def _address(spec: LMSpec) -> str | None:
    """Where clients of OpenAI's protocol find the model; None where that is not known."""
    if spec.is_local:
        return LLAMA_SERVER
    if spec.api_base:
        return public_address(spec.api_base)
    provider = find_provider(spec.model)
    return f"{provider.address}/openai" if provider.name == "gemini" else provider.address


def _key(spec: LMSpec) -> str | None:
    """The expression for the key; None where none is known to be wanted."""
    usual = () if spec.is_local or spec.api_base else find_provider(spec.model).key_names
    name = spec.api_key_env or next(iter(usual), None)
    return f'os.environ["{name}"]' if name else None


def _served_model(spec: LMSpec) -> str:
    """The model's name on its server."""
    return "local" if spec.is_local else spec.model.partition("/")[2] or spec.model


def _sent(prompt_format: str, prompts: Sequence[Prompt]) -> Iterator[str]:
    """For whoever fills the prompt without `fill.py`."""
    for prompt in prompts:
        kind = "messages" if prompt.text is None else "text"
        place = "/chat/completions" if prompt.text is None else "/completions"
        settings = json.dumps(dict(prompt.settings))
        sent = f"the {kind} in `{prompt.file}`, to `{place}`, with `{settings}` beside the model's name"
        yield f"- `{prompt.predictor}`: {sent}"
    shown = "a list stands there as JSON, a text as it is"
    if prompt_format == "compact":
        shown = (
            "each text of a list is a line, whitespace inside a text is one space, an empty text takes the space before"
        )
    yield f"- a placeholder, such as `{{{{question}}}}`, is its last occurrence; {shown}"
    if any("extra_body" in prompt.settings for prompt in prompts):
        yield "- in plain HTTP the content of `extra_body` belongs into the body itself; llama.cpp's server knows it"
