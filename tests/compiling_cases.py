"""Models for the optimizers to work on: one that answers well only when asked well, and one that writes instructions.

Run as a program it compiles with one optimizer, for tests that kill it.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dspy

from optimize.compiling import Compiled, CompileTask, run_optimizer
from optimize.data.dataset import load_dataset
from optimize.metrics.table import load_metric
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.environment import set_environment_defaults
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from programs.search import Search, open_search
from tests.villages import read_villages

GOOD = "Copy the name that the context gives for this trade in this village."
POOR = "Think about the village."
THREADS = 2
PARAMS: dict[str, Any] = {
    "labeled_fewshot": {"k": 2},
    "chain": ["bootstrap_fewshot", {"gepa": {"max_metric_calls": 20, "held_out": 4}}],
}
"""What differs from the defaults."""
SMALL: dict[str, Any] = {
    "labeled_fewshot": {"k": 2},
    "bootstrap_fewshot": {"attempts": 6},
    "random_search": {"num_candidates": 1, "attempts": 4, "held_out": 4},
    "copro": {"breadth": 2, "examples": 4},
    "mipro": {"num_candidates": 2, "num_trials": 2, "attempts": 4, "held_out": 4},
    "simba": {"num_candidates": 2, "examples": 6},
    "gepa": {"max_metric_calls": 20, "held_out": 4},
    "infer_rules": {"num_candidates": 2, "attempts": 4, "held_out": 4},
    "chain": {"steps": [{"bootstrap_fewshot": {"attempts": 4}}, {"copro": {"depth": 1, "examples": 4}}], "held_out": 4},
}
"""For tests of what does not depend on the size."""
EASY = ("baker", "smith")
"""Trades that the reader knows how to look up without being told."""


def prompt_of(body: dict[str, Any]) -> str:
    return body.get("prompt") or "\n".join(str(message["content"]) for message in body["messages"])


def read_when_asked_well(body: dict[str, Any]) -> str:
    """The reader of the villages, who needs good instructions or a demo, but for easy questions."""
    prompt = prompt_of(body)
    questions = re.findall(r"Who is the (\w+) of (\w+)\?", prompt)
    if "search query" in prompt:
        return " ".join(questions[-1])
    helped = GOOD in prompt or len(questions) > 1 or questions[-1][0] in EASY
    return read_villages(body) if helped else "nobody in particular"


def write_instructions(body: dict[str, Any], text: str) -> str:
    """Fill every field that is asked for with the same text."""
    if "module_advice" in prompt_of(body):
        text = json.dumps({"generate": text, "write": text})
    names = re.findall(r"`\[\[ ## (\w+) ## \]\]`", str(body["messages"][-1]["content"]))
    return "\n\n".join(
        [*(f"[[ ## {name} ## ]]\n{text}" for name in names if name != "completed"), "[[ ## completed ## ]]"]
    )


class Models:
    """Answers as `reader` or as `writer`. Of the writer's proposals every second is good, of the reader's samples, too.

    Args:
        wise: Whether good instructions and demos help the reader.
        steady: Whether answers depend on the request alone, and every proposal is the good one.
    """

    def __init__(self, *, wise: bool = True, steady: bool = False) -> None:
        self.wise, self.steady = wise, steady
        self._written = 0
        self._samples: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> str:
        if body["model"] == "writer":
            self._written += 1
            return write_instructions(body, GOOD if self.steady or self._written % 2 == 0 else POOR)
        if not self.wise:
            return "nobody in particular"
        prompt = prompt_of(body)
        self._samples[prompt] += 1
        lucky = not self.steady and body["temperature"] == 1.0 and self._samples[prompt] % 2 == 0
        return read_villages(body) if lucky else read_when_asked_well(body)


def open_villages(villages: Path, indexes: Path) -> tuple[Any, Search]:
    data = load_dataset(villages)
    return data, open_search(
        indexes, data.corpus, PipelineConfig(chunk_size=64, top_k=2, retriever="sparse").canonical()
    )


def compile_villages(
    optimizer: str,
    data: Any,
    search: Search,
    url: str,
    *,
    program: str = "rag",
    seed: int = 0,
    params: Any = None,
    folder: Path | None = None,
    **lm: Any,
) -> Compiled:
    """Compile a program over the villages; `lm` goes to `open_lm`."""
    reader, writer = (
        open_lm(parse_lm({"model": f"openai/{name}", "api_base": url, "retries": 0}), role=role, **lm)
        for name, role in (("reader", "task"), ("writer", "reflection"))
    )
    train = data.train
    task = CompileTask(
        lambda: build_program(program, search), train, load_metric("exact_match"), seed, writer, folder, THREADS
    )
    with dspy.context(lm=reader, adapter=FORMATS["compact"]()):
        return run_optimizer(task, optimizer, PARAMS.get(optimizer, {}) if params is None else params)


def main() -> None:
    villages, indexes, cache, optimizer, url = sys.argv[1:]
    set_environment_defaults()
    data, search = open_villages(Path(villages), Path(indexes))
    compile_villages(optimizer, data, search, url, params=SMALL[optimizer], cache=ResponseCache(Path(cache)))


if __name__ == "__main__":
    main()
