"""Measure every cell of a small space: configuration x candidate x question, with the local model.

The table that comes of it, `table.csv`, is what `replay.py` lets search methods spend their calls on. It holds ids and
numbers, no text of the data set.

Run: uv run python benchmarks/search_efficiency/measure.py DATASET [--runs FOLDER]; about an hour on two cores. What was
answered before comes from the response cache.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy

from optimize.compiling.candidate import Candidate, apply_candidate, read_candidate
from optimize.compiling.run import compile_candidates
from optimize.compiling.task import CompileTask, teachable
from optimize.data.dataset import Dataset, load_dataset
from optimize.data.splits import balanced_order, group_examples
from optimize.evaluation.evaluate import Row, evaluate
from optimize.metrics.table import exact_match, token_f1
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.environment import set_environment_defaults
from programs.lm import open_lm, parse_lm
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache
from programs.search import Search, open_search

HERE = Path(__file__).resolve().parent
SPACE: dict[str, list[Any]] = {
    "chunk_size": [64, 160],
    "top_k": [1, 3],
    "retriever": ["dense", "sparse"],
    "reranker": ["none", "maxsim"],
}
SCORES = ("token_f1", "exact_match", "span_recall", "gold_in_context")
COSTS = ("context_tokens", "prompt_tokens", "completion_tokens", "latency_s")
QUESTIONS = 60
COMPILED_ON = {"chunk_size": 160, "top_k": 1, "retriever": "dense", "reranker": "maxsim"}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "labeled_fewshot": {"k": 3},
    "bootstrap_fewshot": {"max_bootstrapped_demos": 3},
}


def main(folder: Path, runs: Path) -> None:
    set_environment_defaults()
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    dataset = load_dataset(folder)
    groups = group_examples(dataset.examples, {document.id: document for document in dataset.corpus.documents})
    questions = balanced_order(dataset.validation, groups, seed=0)[:QUESTIONS]
    (runs / "cache").mkdir(parents=True, exist_ok=True)
    lm = open_lm(
        parse_lm({"model": "local", "max_tokens": 32}), cache=ResponseCache(runs / "cache" / "responses.sqlite")
    )
    cell = Cell(dataset, runs, lm)
    candidates = cell.candidates(balanced_order(dataset.train, groups, seed=0)[:60])
    with (HERE / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*SPACE, "candidate", "question", "group", *SCORES, *COSTS))
        for values in itertools.product(*SPACE.values()):
            params = dict(zip(SPACE, values, strict=True))
            for name, candidate in candidates.items():
                for row, exact in cell.measure(params, candidate, questions):
                    writer.writerow([*values, name, row.example_id, groups[row.example_id], *_numbers(row, exact)])
                file.flush()
                print(params, name, flush=True)
    about = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "model": "local",
        "compile_calls": {name: sum(candidate.calls.values()) for name, candidate in candidates.items()},
    }
    (HERE / "table.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _numbers(row: Row, exact: float) -> list[Any]:
    assert row.score is not None, row.error
    measures = [round(row.measures[name], 4) for name in SCORES[2:]]
    tokens = [getattr(row, name) for name in COSTS[:3]]
    return [round(row.score, 4), exact, *measures, *tokens, round(row.latency_s, 3)]


class Cell:
    """Measures one configuration with one candidate."""

    def __init__(self, dataset: Dataset, runs: Path, lm: dspy.LM) -> None:
        self._dataset, self._runs, self._lm = dataset, runs, lm
        self._examples = {example.id: example for example in dataset.examples}

    def candidates(self, train: list[Any]) -> dict[str, Candidate]:
        """The program as written, and what the optimizers make of it on one pipeline."""
        search = self._search(COMPILED_ON)
        task = CompileTask(
            lambda: build_program("rag", search, abstain=self._dataset.abstains), teachable(train, search), token_f1, 0
        )
        found = {"bare": read_candidate(task.build(), {})}
        with self._context():
            for name, params in OPTIMIZERS.items():
                [found[name]], _ = compile_candidates(task, name, params)
        return found

    def measure(
        self, params: dict[str, Any], candidate: Candidate, questions: list[Any]
    ) -> Iterator[tuple[Row, float]]:
        """The rows of all questions, each with its exact match."""
        program = build_program("rag", self._search(params), abstain=self._dataset.abstains)
        apply_candidate(program, candidate, self._examples)
        with self._context():
            rows = evaluate(program, questions, token_f1, threads=1).rows
        for example, row in zip(questions, rows, strict=True):
            yield row, exact_match(example, dspy.Prediction(answer=row.answer))

    def _search(self, params: dict[str, Any]) -> Search:
        config = PipelineConfig.from_params({"prompt_format": "compact", **params}).canonical()
        return open_search(self._runs, self._dataset.corpus, config)

    def _context(self) -> Any:
        return dspy.context(lm=self._lm, adapter=FORMATS["compact"]())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--runs", type=Path, default=HERE.parent.parent / "runs")
    said = parser.parse_args()
    main(said.dataset, said.runs)
