"""The screened winner against the usual default, at no more context tokens, on questions that the screen did not see.

`uv run python benchmarks/screen_quality.py DATASET [DATASET ...] [--configurations 200]`

The default is what people start with: recursive chunks of 512 tokens, dense retrieval, three passages. The screen looks
at the validation questions; both are then scored on the train questions, which nothing was chosen by. The test split
stays closed. Intervals count questions about one document, or one part of it, as dependent.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from optimize.reporting.screen import describe, worth_table
from optimize.runs.progress import Silence
from optimize.screening.screen import Screen
from optimize.studies.check import check_retrieval

SPACE = {
    "splitter": ["fixed", "recursive", "sentence", "markdown", "semantic"],
    "chunk_size": [32, 64, 96, 128, 192, 256, 384, 512],
    "chunk_overlap": [0.0, 0.1, 0.25],
    "context_prefix": ["none", "title", "headings"],
    "embedder": ["wordllama", "wordllama@128"],
    "retriever": ["dense", "sparse", "hybrid", "weighted"],
    "dense_weight": [0.2, 0.35, 0.5],
    "retrieve_k": [10, 20, 40],
    "reranker": ["none", "lexical", "mmr", "maxsim"],
    "cutoff": [0.0, 0.3, 0.5],
    "top_k": [1, 2, 3, 5, 8, 12],
    "expansion": ["none", "neighbours", "parent"],
}
DEFAULT = {"splitter": "recursive", "chunk_size": 512, "retriever": "dense", "top_k": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path)
    asked = parser.parse_args()
    for dataset in asked.datasets:
        with tempfile.TemporaryDirectory() as folder:
            compare(dataset, asked.runs or Path(folder), asked.configurations, asked.seed)


def compare(dataset: Path, runs: Path, configurations: int, seed: int) -> None:
    """Screen one data set and print its row, then what each setting is worth at the pick."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "study.yaml"
    screen = {"configurations": configurations}
    study = {"name": dataset.resolve().name, "dataset": str(dataset.resolve()), "space": SPACE, "baseline": DEFAULT}
    file.write_text(json.dumps({**study, "screen": screen, "seed": seed}))
    config, loaded = check_retrieval(file)
    found = Screen(config, loaded, runs, Silence()).run()
    assert found.check is not None, "these data sets have evidence in every split"
    base, pick, d = found.check.baseline, found.check.pick, found.check.difference
    print(f"\n{study['name']}: {found.scored} questions screened, {d.n} unseen from {d.clusters} groups")
    print(f"{len(found.points)} configurations in {found.seconds:.0f} s")
    for name, point in (("default", base), ("pick", pick)):
        print(f"  {name:<8} span recall {point.quality:.3f}  {point.tokens:4.0f} tokens  {describe(point)}")
    print(f"  difference {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p {d.p_value:.4f}")
    for row in worth_table(found).rows:
        print("  " + "  ".join(f"{cell:<14}" for cell in row))


if __name__ == "__main__":
    main()
