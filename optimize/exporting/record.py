"""What the LM is really sent, seen where it is sent: an export's prompts with their settings, and worked examples."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy.utils.callback import BaseCallback

from optimize.data.dataset import Dataset
from optimize.data.example import Example
from programs.completion import chat_messages, is_bare, prompt_text, sampling_params
from programs.config import PipelineConfig, fingerprint
from programs.errors import BudgetExhaustedError, RagwrightError

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import Request, Response

    from programs.lm import LMSpec

WORKED, TRIED = 3, 60
"""How many examples an export brings along, and among how many questions they are looked for."""


@dataclass(frozen=True)
class Prompt:
    """The rendered prompt of one predictor.

    Attributes:
        predictor: Its name in the program.
        inputs: Names of its inputs; each stands in the prompt as a placeholder `{{name}}`.
        outputs: Names of what the LM is to write, in order.
        messages: As `role` and `content`.
        text: The same as a bare completion; None for a chat.
        prompt_format: How inputs become text, and a reply becomes outputs.
        file: The export's file that holds it; all messages stand in one.
        settings: The rest of the request's body, but for the model's name; under `extra_body` what only llama.cpp's
            server knows.
    """

    predictor: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    messages: list[dict[str, str]]
    text: str | None
    prompt_format: str
    file: str
    settings: Mapping[str, Any]

    @property
    def stop(self) -> str | None:
        """Where a bare completion ends; None for a chat."""
        return self.settings["stop"][0] if self.text is not None else None


def render_prompts(program: dspy.Module, config: PipelineConfig, spec: LMSpec) -> list[Prompt]:
    """What the LM is sent, predictor by predictor. Nothing is sent."""
    from programs.prompt_format import FORMATS

    adapter = FORMATS[config.prompt_format]()
    predictors, prompts = list(program.named_predictors()), []
    for name, predictor in predictors:
        signature = predictor.signature
        placeholders = {one: f"{{{{{one}}}}}" for one in signature.input_fields}
        with _watched(spec, adapter, None) as (lm, engine):
            try:
                adapter(lm, dict(predictor.config), signature, predictor.demos, placeholders)
            except _SeenError:
                request = engine.requests[-1]
        bare = is_bare(request)
        prompts.append(
            Prompt(
                predictor=name,
                inputs=tuple(signature.input_fields),
                outputs=tuple(signature.output_fields),
                messages=chat_messages(request),
                text=prompt_text(request) if bare else None,
                prompt_format=config.prompt_format,
                file=_text_file(name, alone=len(predictors) == 1) if bare else "messages.json",
                settings=_settings(request, spec),
            )
        )
    return prompts


def _text_file(predictor: str, alone: bool) -> str:
    """A predictor in a list or a mapping has brackets, quotes and more in its name, of which its file has a digest."""
    if alone:
        return "prompt.txt"
    plain = re.sub(r"[^\w.-]+", "-", predictor).strip("-")
    return f"prompt-{plain}.txt" if plain == predictor else f"prompt-{plain}-{fingerprint(predictor)[:4]}.txt"


def worked_examples(
    program: dspy.Module,
    config: PipelineConfig,
    spec: LMSpec,
    dataset: Dataset,
    cache: Path | None,
    asked: Collection[str] = (),
) -> tuple[list[dict[str, Any]], str]:
    """Questions whose answers the study has paid for, with everything that was sent for them. No call is made.

    Args:
        program: The winner's.
        config: Its pipeline.
        spec: The LM.
        dataset: Questions come from its validation and train splits, never from test.
        cache: The file of the study's answers; None: there is none.
        asked: Ids of questions that the winner has answered; empty: they are looked for among the first `TRIED`.

    Returns:
        The examples as JSON, and why there are fewer than `WORKED`, or nothing.
    """
    from programs.prompt_format import FORMATS

    if cache is None or not cache.is_file():
        return [], "left out: the answers of the study are not at hand, and no call is made for this"
    found = []
    splits = {"validation": dataset.validation, "train": dataset.train}
    examples = [(split, example) for split, examples in splits.items() for example in examples]
    wanted = [(split, example) for split, example in examples if example.id in asked] or examples
    with _watched(spec, FORMATS[config.prompt_format](), cache, program) as (_, engine):
        for split, example in wanted[:TRIED]:
            worked = _worked(program, engine, example)
            if worked is not None:
                found.append({"id": example.id, "split": split, **worked})
            if len(found) == WORKED:
                return found, ""
    return found, f"{len(found)} of {WORKED}: no more questions have an answer in the study's cache"


def _worked(program: dspy.Module, engine: _Watch, example: Example) -> dict[str, Any] | None:
    """One answered question; None where it was not asked before, or was answered with nothing."""
    engine.clear()
    try:
        prediction = program(question=example.question)
    except Exception:  # noqa: BLE001  # a person's program may raise anything
        return None
    answer = prediction.get("answer")
    if not answer or not all(call.predictor for call in engine.calls):
        return None
    passages = prediction.get("passages") or ()
    return {
        "question": example.question,
        "passages": [{**_span(passage), "text": passage.text} for passage in passages],
        "calls": [call.as_json() for call in engine.calls],
        "answer": str(answer),
    }


def _span(passage: Any) -> dict[str, Any]:
    return {name: getattr(passage.span, name) for name in ("doc_id", "start", "end")}


@dataclass
class _Call:
    """One call that was answered."""

    predictor: str | None
    inputs: Mapping[str, Any]
    request: Request
    response: Response
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        bare = is_bare(self.request)
        sent = {"prompt": prompt_text(self.request)} if bare else {"messages": chat_messages(self.request)}
        reply = "".join(getattr(part, "text", "") for part in self.response.message.parts)
        return {
            "predictor": self.predictor,
            "inputs": dict(self.inputs),
            **sent,
            "reply": reply,
            "outputs": {name: str(value) for name, value in self.outputs.items()},
        }


class _SeenError(RagwrightError):
    """Ends a call that was only to be looked at."""


class _Watch(BaseCallback):
    """An engine in front of another that shows what passes, and a callback that knows which predictor it comes from.

    Args:
        engine: Answers.
        names: Predictor by identity.
        ask: Whether the engine is asked at all.
    """

    def __init__(self, engine: Any, names: Mapping[int, str], ask: bool) -> None:
        self._engine, self._names, self._ask = engine, names, ask
        self.clear()

    def clear(self) -> None:
        """Forget what was seen."""
        self.requests: list[Request] = []
        self.calls: list[_Call] = []
        self._at: tuple[str | None, Mapping[str, Any]] = None, {}

    def complete(self, request: Request) -> Response:
        """Answer a request, or stop it there."""
        self.requests.append(request)
        if not self._ask:
            raise _SeenError("seen")
        response: Response = self._engine.complete(request)
        self.calls.append(_Call(*self._at, request, response))
        return response

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A predictor begins."""
        if id(instance) in self._names:
            self._at = self._names[id(instance)], inputs["kwargs"]

    def on_module_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        """A module has ended: the first after a call is the predictor that made it."""
        if self.calls and not self.calls[-1].outputs and outputs is not None:
            self.calls[-1].outputs = dict(outputs.items())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._engine, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Watch:
        return self


@contextmanager
def _watched(
    spec: LMSpec, adapter: dspy.Adapter, cache: Path | None, program: dspy.Module | None = None
) -> Iterator[tuple[dspy.LM, _Watch]]:
    """The DSPy context in which an LM answers from the cache and nothing else, and is watched."""
    import dspy

    from programs.lm import open_lm
    from programs.metered_lm import MeteredLM
    from programs.response_cache import ResponseCache

    answers = ResponseCache(cache) if cache is not None else None
    opened = open_lm(spec, cache=answers, admit=_refuse)
    names = {id(predictor): name for name, predictor in program.named_predictors()} if program is not None else {}
    engine = _Watch(opened.engine, names, ask=cache is not None)
    lm = MeteredLM(
        opened.model,
        engine=engine,
        cache=False,
        num_retries=0,
        temperature=spec.temperature,
        max_tokens=spec.max_tokens,
    )
    try:
        with dspy.context(lm=lm, adapter=adapter, callbacks=[engine], disable_history=True, usage_tracker=None):
            yield lm, engine
    finally:
        if answers is not None:
            answers.close()


def _refuse() -> None:
    raise BudgetExhaustedError("only what was answered before is looked at.")


def _settings(request: Request, spec: LMSpec) -> dict[str, Any]:
    """The request's body without model, prompt and messages, in the words of OpenAI's protocol."""
    from programs.local_lm import NOT_EMPTY

    settings = sampling_params(request)
    if spec.model.startswith("openai/") and not is_bare(request) and "max_tokens" in settings:
        # OpenAI's own name for it, which DSPy sends; others know the old one.
        settings["max_completion_tokens"] = settings.pop("max_tokens")
    if (wanted := request.config.response_format) and not is_bare(request):
        settings["response_format"] = _response_format(wanted)
    if spec.is_local and is_bare(request):
        settings["extra_body"] = {"grammar": NOT_EMPTY}
    return settings


def _response_format(wanted: Mapping[str, Any]) -> dict[str, Any]:
    if wanted["type"] != "json_schema":
        return {"type": wanted["type"]}
    schema = {"name": wanted.get("name") or "response", "schema": wanted["schema"]}
    return {"type": "json_schema", "json_schema": schema | ({"strict": wanted["strict"]} if "strict" in wanted else {})}
