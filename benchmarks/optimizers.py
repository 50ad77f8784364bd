"""What does each optimizer make of a program, and for how many calls? Every one in the table, once, on the same data.

Some training questions are held out from the optimizers. On those the bare program and every candidate are scored; the
best candidate's score is that of the best of a few, so it flatters. Nothing but training questions is read.

Run: uv run python benchmarks/optimizers.py [--dataset FOLDER] [--lm NAME] [--reflection-lm NAME] [--only OPTIMIZER ...]
About half an hour with the local model on two cores. What was answered before comes from the response cache.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import dspy

from optimize.compiling import (
    OPTIMIZERS,
    CompileFailedError,
    CompileTask,
    predicted_calls,
    run_optimizer,
    teachable,
)
from optimize.compiling.candidate import Candidate, apply_candidate, read_candidate
from optimize.data.dataset import load_dataset
from optimize.data.example import Example
from optimize.evaluation.evaluate import evaluate
from optimize.metrics.table import load_metric
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.environment import set_environment_defaults
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from programs.search import open_search

ROOT = Path(__file__).resolve().parent.parent
PARAMS: dict[str, dict[str, Any]] = {
    "chain": {"steps": ["bootstrap_fewshot", {"gepa": {"max_metric_calls": 20, "held_out": 4}}], "held_out": 6}
}
"""A chain of two with their defaults would take more than a hundred calls."""
PIPELINE = PipelineConfig(chunk_size=128, retriever="hybrid", retrieve_k=10, reranker="lexical", top_k=2).canonical()
HEADER = (
    "optimizer",
    "calls at most",
    "calls: task + reflection",
    "seconds",
    "candidates",
    "held-out before",
    "best after",
)


class Bench:
    """One data set, one pipeline, one pair of models.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        data = load_dataset(args.dataset)
        self.folder, self.seed = args.runs, args.seed
        self.search = open_search(args.runs, data.corpus, PIPELINE)
        self.abstain = data.abstains
        known = [example for example in teachable(data.train, self.search) if example.answers is not None]
        self.held, self.train = tuple(known[: args.held_out]), tuple(known[args.held_out :])
        self.examples = {example.id: example for example in data.train}
        self.metric = load_metric("token_f1")
        spec, reflection = parse_lm(args.lm), parse_lm(args.reflection_lm or args.lm)
        cache = ResponseCache(args.runs / "cache" / "responses.sqlite")
        self.lm, self.threads = open_lm(spec, cache=cache), spec.threads
        self.reflection = open_lm(reflection, cache=cache, role="reflection")

    def build(self) -> dspy.Module:
        """A bare program."""
        return build_program("rag", self.search, abstain=self.abstain)

    def context(self) -> Any:
        """The task LM in the compact format."""
        return dspy.context(lm=self.lm, adapter=FORMATS["compact"]())

    def score(self, candidate: Candidate, examples: tuple[Example, ...]) -> float:
        """Mean over the held-out questions."""
        program = self.build()
        apply_candidate(program, candidate, self.examples)
        with self.context():
            return evaluate(program, examples, self.metric, self.threads).mean()[0]

    def run(self, name: str) -> tuple[str, ...]:
        """One row of the table."""
        params = PARAMS.get(name, {})
        most = predicted_calls(name, params, 1, len(self.train))
        task = CompileTask(
            self.build, self.train, self.metric, self.seed, self.reflection, self.folder / "logs", self.threads
        )
        before = self.score(read_candidate(self.build(), {}), self.held)
        begun = time.perf_counter()
        try:
            with self.context():
                compiled = run_optimizer(task, name, params)
        except CompileFailedError as error:
            seconds = f"{time.perf_counter() - begun:.0f}"
            return (name, str(most), str(error.calls), seconds, str(error).removesuffix("."), f"{before:.3f}", "")
        seconds = f"{time.perf_counter() - begun:.0f}"
        calls = f"{compiled.calls.get('task', 0)} + {compiled.calls.get('reflection', 0)}"
        after = [self.score(candidate, self.held) for candidate in compiled.candidates]
        best = f"{max(after):.3f}" if after else ""
        return (name, str(most), calls, seconds, str(len(compiled.candidates)), f"{before:.3f}", best)


def main() -> None:
    """Print what it may take, then the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", type=Path, default=ROOT / "datasets" / "handbook")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where indexes and answers are kept")
    parser.add_argument("--lm", default="local")
    parser.add_argument("--reflection-lm", help="by default the task LM in this role")
    parser.add_argument("--held-out", type=int, default=24, help="training questions kept from the optimizers")
    parser.add_argument("--only", nargs="*", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    set_environment_defaults()
    bench = Bench(args)
    most = {name: predicted_calls(name, PARAMS.get(name, {}), 1, len(bench.train)) for name in args.only}
    kept = sum(1 + OPTIMIZERS[name].of(name, PARAMS.get(name, {})).most_candidates for name in args.only) * len(
        bench.held
    )
    print(f"{len(bench.train)} training questions, {len(bench.held)} held out from them; calls at most: ", end="")
    print(", ".join(f"{name} {count}" for name, count in most.items()), end="")
    print(f"; to score candidates {kept}; together {sum(most.values()) + kept}.\n", flush=True)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for name in args.only:
        print(f"| {' | '.join(bench.run(name))} |", flush=True)


if __name__ == "__main__":
    main()
