"""How long a screen takes, cold and warm, against the same sweep written by hand.

`uv run python benchmarks/screen_speed.py DATASET [--questions 600] [--configurations 60] [--copies 1] [--by-hand]`

Cold: no index, no cache. Warm: chunks, terms and vectors are on disk, and every configuration is scored anew. Again:
the same command once more. By hand: for each configuration split, embed, fill a new Chroma collection, build BM25, and
ask question by question, with the same libraries and settings, as one does without this tool. Each in a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SPACE: dict[str, Any] = {
    "splitter": ["recursive", "sentence"],
    "chunk_size": [64, 128, 256, 512],
    "chunk_overlap": [0.0, 0.25],
    "retriever": ["dense", "sparse", "hybrid"],
    "retrieve_k": [20],
    "reranker": ["none", "lexical"],
    "top_k": [1, 2, 3, 5, 8],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--configurations", type=int, default=60)
    parser.add_argument("--copies", type=int, default=1, help="The corpus so many times, words shuffled in each copy.")
    parser.add_argument("--by-hand", action="store_true", help="Also the sweep by hand, which takes minutes.")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(STEPS[asked.step](asked.work)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(asked.dataset, work, asked.questions, asked.configurations, asked.copies)
        steps = ["embed", "cold", "warm", "again", *(["by_hand"] if asked.by_hand else [])]
        print(f"{asked.copies} x the corpus, {asked.questions} questions, {asked.configurations} configurations")
        for step in steps:
            found = run(step, work, asked.dataset)
            print("  ".join([f"{step:<8}", *(f"{name} {value}" for name, value in found.items())]), flush=True)


def prepare(source: Path, work: Path, questions: int, configurations: int, copies: int) -> None:
    """A data set of the wished size, and a study over it."""
    from optimize.data.dataset import load_dataset, write_examples

    dataset = load_dataset(source)
    folder = work / "data"
    folder.mkdir()
    generator = random.Random(0)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as lines:
        for copy in range(copies):
            for document in dataset.corpus.documents:
                text = document.text if copy == 0 else shuffled(document.text, generator)
                line = {"id": f"{document.id}~{copy}" if copy else document.id, "title": document.title, "text": text}
                lines.write(json.dumps(line) + "\n")
    validation = generator.sample(dataset.validation, min(questions, len(dataset.validation)))
    for name, examples in (("train", dataset.train), ("validation", validation), ("test", dataset.test)):
        write_examples(folder / f"{name}.jsonl", examples)
    study = {"name": "speed", "dataset": str(folder), "space": SPACE, "screen": {"configurations": configurations}}
    (work / "study.yaml").write_text(json.dumps(study))


def shuffled(text: str, generator: random.Random) -> str:
    """The same words in another order within each line: as long, and no chunk like one of the original."""
    lines = [line.split(" ") for line in text.split("\n")]
    for words in lines:
        generator.shuffle(words)
    return "\n".join(" ".join(words) for words in lines)


def run(step: str, work: Path, dataset: Path) -> dict[str, Any]:
    """One step in a process of its own: its seconds, its peak memory and what it says."""
    command = [sys.executable, __file__, str(dataset), "--step", step, "--work", str(work)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begun
    return {"seconds": round(seconds, 1), **json.loads(done.stdout.splitlines()[-1])}


def said(**numbers: Any) -> dict[str, Any]:
    return {**numbers, "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def screen(work: Path) -> dict[str, Any]:
    from optimize.runs.progress import Silence
    from optimize.screening.screen import Screen
    from optimize.studies.check import check_retrieval
    from programs.embedding import open_embedder

    config, dataset = check_retrieval(work / "study.yaml")
    found = Screen(config, dataset, work / "runs", Silence()).run()
    embedder = open_embedder("wordllama", (work / "runs" / "cache").resolve())
    return said(scored=len(found.points), embedded=embedder.texts_embedded)


def cold(work: Path) -> dict[str, Any]:
    shutil.rmtree(work / "runs", ignore_errors=True)
    return screen(work)


def warm(work: Path) -> dict[str, Any]:
    shutil.rmtree(work / "runs" / "screens")
    return screen(work)


def embed(work: Path) -> dict[str, Any]:
    """The corpus embedded once, in chunks of 128 tokens: what growth is measured against."""
    from optimize.studies.check import check_retrieval
    from programs.chunking import make_chunks
    from programs.config import PipelineConfig
    from programs.embedding import open_embedder

    _, dataset = check_retrieval(work / "study.yaml")
    chunks, _, _ = make_chunks(dataset.corpus, PipelineConfig(chunk_size=128))
    embedder = open_embedder("wordllama")
    embedder.embed(["loads the model"])
    begun = time.perf_counter()
    embedder.embed([chunk.text for chunk in chunks])
    return said(chunks=len(chunks), embedding_s=round(time.perf_counter() - begun, 2))


def by_hand(work: Path) -> dict[str, Any]:
    """Every configuration from scratch: split, embed, fill Chroma, build BM25, ask question by question."""
    from optimize.measures.evidence import Gold
    from optimize.measures.table import SpanRecall
    from optimize.studies.check import check_retrieval
    from programs.config import PipelineConfig
    from programs.embedding import open_embedder
    from programs.splitting import split
    from programs.tokens import count_tokens

    _, dataset = check_retrieval(work / "study.yaml")
    folder = next((work / "runs" / "screens").iterdir())
    lines = (folder / "validation.jsonl").read_text().splitlines()
    configurations = json.loads((work / "study.yaml").read_text())["screen"]["configurations"]
    # The baseline and the screen's own; behind them are those that tell what each setting is worth.
    configs = [PipelineConfig.from_params(json.loads(line)["config"]) for line in lines[: configurations + 1]]
    embedder = open_embedder("wordllama")
    recalls = []
    for config in configs:
        chunks = []
        for document in dataset.corpus.documents:
            chunks += split(document, config.splitter, config.chunk_size, config.chunk_overlap, count_tokens)
        find = searcher([chunk.text for chunk in chunks], config, embedder.embed)
        values = []
        for example in dataset.validation:
            spans = [chunks[position].span for position in find(example.question)]
            values.append(SpanRecall()(Gold(example.evidence).held_by(spans)))
        recalls.append(float(np.mean(values)))
    return said(scored=len(configs), mean_recall=round(float(np.mean(recalls)), 4))


def searcher(texts: Sequence[str], config: Any, embed: Callable[[list[str]], Any]) -> Callable[[str], list[int]]:
    """Dense, sparse or hybrid, and perhaps a lexical second look, as one writes it for one configuration."""
    import bm25s
    import chromadb
    from chromadb.config import Settings

    from programs.terms import terms

    client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False, allow_reset=True))
    client.reset()
    collection = client.create_collection(
        "chunks", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    needs = config.retriever != "sparse"
    for start in range(0, len(texts) if needs else 0, 1000):
        part = texts[start : start + 1000]
        collection.add(ids=[str(start + n) for n in range(len(part))], embeddings=embed(list(part)))
    words = [terms(text) for text in texts]
    bm25 = bm25s.BM25(method="lucene")
    bm25.index(words, show_progress=False)
    sets = [set(found) for found in words]
    idf = {term: np.log1p((len(texts) - n + 0.5) / (n + 0.5)) for term, n in counts(sets).items()}
    depth = 100 if config.retriever == "hybrid" else config.retrieve_k

    def dense(question: str) -> list[int]:
        found = collection.query(query_embeddings=embed([question]), n_results=min(depth, len(texts)))
        return [int(name) for name in found["ids"][0]]

    def sparse(question: str) -> list[int]:
        known = [term for term in terms(question) if term in idf]
        scores = bm25.get_scores(known) if known else np.zeros(len(texts))
        return [int(n) for n in np.argsort(-scores, kind="stable")[:depth] if scores[n] > 0]

    def find(question: str) -> list[int]:
        lists = {"dense": [dense], "sparse": [sparse], "hybrid": [dense, sparse]}[config.retriever]
        scores: dict[int, float] = {}
        for ranking in (one(question) for one in lists):
            for rank, position in enumerate(ranking, 1):
                scores[position] = scores.get(position, 0.0) + 1 / (60 + rank)
        best = sorted(scores, key=lambda position: -scores[position])[: config.retrieve_k]
        if config.reranker == "lexical":
            asked = set(terms(question))
            best.sort(key=lambda position: -sum(idf.get(term, 0.0) for term in asked & sets[position]))
        return best[: config.top_k]

    return find


def counts(sets: Sequence[set[str]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for terms in sets:
        for term in terms:
            found[term] = found.get(term, 0) + 1
    return found


STEPS = {"embed": embed, "cold": cold, "warm": warm, "again": screen, "by_hand": by_hand}

if __name__ == "__main__":
    main()
