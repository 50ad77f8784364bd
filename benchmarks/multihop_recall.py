"""Span recall of `rag` and `multihop` on the handbook's two-document questions, at the same number of passages.

Run: uv run python benchmarks/multihop_recall.py [QUESTIONS]
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import dspy

from optimize.data.dataset import load_dataset
from optimize.data.splits import balanced_order, group_examples
from optimize.evaluation.evaluate import evaluate
from optimize.evaluation.outcome import summarize
from optimize.metrics.table import token_f1
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.environment import set_environment_defaults
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from programs.search import open_search

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"


def main(count: int) -> None:
    set_environment_defaults()
    logging.getLogger("dspy").setLevel(logging.ERROR)
    dataset = load_dataset(ROOT / "datasets" / "handbook")
    groups = group_examples(dataset.examples, {document.id: document for document in dataset.corpus.documents})
    two = [example for example in dataset.examples if len(example.documents) == 2]
    examples = balanced_order(two, groups, seed=0)[:count]
    (RUNS / "cache").mkdir(parents=True, exist_ok=True)
    lm = open_lm(
        parse_lm({"model": "local", "max_tokens": 24}), cache=ResponseCache(RUNS / "cache" / "responses.sqlite")
    )
    print(f"{len(examples)} questions over two documents")
    print("| program | top_k | passages shown | span recall | gold in context | token F1 | prompt tokens |")
    print("|---|---|---|---|---|---|---|")
    for name, top_k in (("rag", 4), ("multihop", 2)):
        config = PipelineConfig(chunk_size=96, retriever="sparse", top_k=top_k, prompt_format="compact").canonical()
        program = build_program(name, open_search(RUNS, dataset.corpus, config))
        with dspy.context(lm=lm, adapter=FORMATS["compact"]()):
            evaluation = evaluate(program, examples, token_f1, threads=1)
        found = summarize(evaluation, groups)
        shown = sum(len(row.spans) for row in evaluation.rows) / len(examples)
        print(
            f"| {name} | {top_k} | {shown:.1f} | {found.measures['span_recall']:.3f} "
            f"| {found.measures['gold_in_context']:.3f} | {found.score:.3f} ± {found.stderr:.3f} "
            f"| {found.prompt_tokens / len(examples):.0f} |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 48)
