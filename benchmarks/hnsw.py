"""Do two builds of the same vectors find the same passages? Chroma's HNSW against exact search, for several settings.

The vectors are wordllama's, of windows of words from real texts; the queries are windows that the index does not hold:
passages of the same lengths, and short ones, as long as a question. Each index is built three times: twice in the same
order and once shuffled. Chroma inserts the rows of a batch in parallel and in an order of its own, with any number of
threads, so that the same order gives another graph as well. What it has not yet written to the disk, up to
`sync_threshold` vectors, it inserts again whenever the index is opened: then even one index differs from itself.

Run: uv run python benchmarks/hnsw.py [TEXTS ...] [--vectors N ...] [--settings CHOICE ...]
where a choice is EF_CONSTRUCTION/NEIGHBOURS/EF_SEARCH, or the same with /SYNC_THRESHOLD at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Self, TypeVar

import chromadb
import numpy as np
from chromadb.config import Settings as ClientSettings
from numpy.typing import NDArray

from programs.corpus import find_corpus, load_corpus
from programs.embedding import Vectors, open_embedder
from programs.environment import set_environment_defaults
from programs.vector_store import HNSW

Result = TypeVar("Result")
Rows = NDArray[np.intp]
"""For each query the rows of the vectors found for it, best first."""

ROOT = Path(__file__).resolve().parent.parent
K = 10
PASSAGE_WORDS = (32, 64, 128)
QUESTION_WORDS = 12
BUILDS = ("first", "again", "shuffled")
_BATCH = 1000
# A block's similarities to all vectors are in memory at once.
_BLOCK = 100
_COLLECTION = "windows"
_SYNC_THRESHOLD = 1000  # Chroma's default.
# Two vectors whose similarities differ by less are equally near: sums in float32 differ by their order.
_TIE = 1e-6


@dataclass(frozen=True, order=True)
class Settings:
    """One choice of HNSW's settings; those that differ in `ef_search` alone share their builds."""

    ef_construction: int
    max_neighbors: int
    sync_threshold: int
    ef_search: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `EF_CONSTRUCTION/NEIGHBOURS/EF_SEARCH`, with `/SYNC_THRESHOLD` at the end where it is not Chroma's.

        Raises:
            ValueError: It is something else.
        """
        construction, neighbours, search, *sync = (int(part) for part in text.split("/"))
        (threshold,) = sync or [_SYNC_THRESHOLD]
        return cls(construction, neighbours, threshold, search)

    @property
    def graph(self) -> tuple[int, int, int]:
        """What a build depends on."""
        return self.ef_construction, self.max_neighbors, self.sync_threshold

    @property
    def configuration(self) -> dict[str, Any]:
        """What Chroma is told."""
        return {"space": "cosine", **asdict(self)}

    def __str__(self) -> str:
        text = f"{self.ef_construction}/{self.max_neighbors}/{self.ef_search}"
        return text if self.sync_threshold == _SYNC_THRESHOLD else f"{text}/{self.sync_threshold}"


CHROMA = Settings.parse("100/16/100")
_OURS = {"sync_threshold": _SYNC_THRESHOLD, **HNSW}
OURS = Settings.parse("{ef_construction}/{max_neighbors}/{ef_search}/{sync_threshold}".format_map(_OURS))


@dataclass(frozen=True)
class Task:
    """What is indexed and asked.

    Attributes:
        vectors: One unit row for each window of the index.
        queries: Kind -> unit rows.
        weakest: Kind -> for each query the similarity of the last of its exact top `K`.
        seconds: Kind -> what exact search takes for one query: the median alone, and the mean in blocks.
    """

    vectors: Vectors
    queries: dict[str, Vectors]
    weakest: dict[str, Vectors]
    seconds: dict[str, tuple[float, float]]

    def recall(self, kind: str, found: Rows) -> NDArray[np.float64]:
        """For each query the share of `found` that is as near as the exact top `K`."""
        similarities = np.einsum("qd,qkd->qk", self.queries[kind], self.vectors[found])
        return np.asarray((similarities >= self.weakest[kind][:, None] - _TIE).mean(axis=1), dtype=np.float64)


def read_texts(path: Path) -> list[str]:
    """The documents of a data-set folder or of a corpus.jsonl; any other file is one text."""
    if path.is_dir() or path.suffix == ".jsonl":
        corpus = load_corpus(find_corpus(path) if path.is_dir() else path)
        return [document.text for document in corpus.documents]
    return [path.read_text(encoding="utf-8")]


def draw_windows(
    texts: Sequence[list[str]], lengths: Sequence[int], count: int, generator: np.random.Generator
) -> list[str]:
    """`count` windows in random order, no two of them with the same words: those have the same vector.

    Args:
        texts: The words of each text.
        lengths: How many words a window may have.
        count: How many windows are wanted.
        generator: Chooses among all windows at every position.
    """
    places = [(words, length) for words in texts for length in lengths if len(words) >= length]
    ends = np.cumsum([len(words) - length + 1 for words, length in places])
    distinct: dict[tuple[str, ...], str] = {}
    for number in generator.permutation(ends[-1] if places else 0):
        place = int(np.searchsorted(ends, number, side="right"))
        words, length = places[place]
        start = int(ends[place]) - int(number) - 1
        window = words[start : start + length]
        distinct.setdefault(tuple(sorted(word.casefold() for word in window)), " ".join(window))
        if len(distinct) == count:
            return list(distinct.values())
    raise SystemExit(f"the texts have {len(distinct)} distinct windows, {count} are needed; give more or longer texts.")


def search_exactly(vectors: Vectors, queries: Vectors) -> tuple[Rows, Vectors]:
    """The `K` nearest rows of each query, best first, and the similarity of the last of them."""
    rows, weakest = [], []
    for start in range(0, len(queries), _BLOCK):
        similarities = queries[start : start + _BLOCK] @ vectors.T
        best = np.argpartition(similarities, -K, axis=1)[:, -K:]
        values = np.take_along_axis(similarities, best, axis=1)
        rows.append(np.take_along_axis(best, np.argsort(-values, axis=1, kind="stable"), axis=1))
        weakest.append(values.min(axis=1))
    return np.concatenate(rows), np.concatenate(weakest)


def open_task(vectors: Vectors, queries: dict[str, Vectors]) -> Task:
    """Search exactly for all queries, and take the time."""
    weakest, seconds = {}, {}
    for kind, rows in queries.items():
        alone = [timed(partial(search_exactly, vectors, row[None]))[1] for row in rows[:100]]
        (_, weakest[kind]), together = timed(partial(search_exactly, vectors, rows))
        seconds[kind] = float(np.median(alone)), together / len(rows)
    return Task(vectors, queries, weakest, seconds)


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What the work returns, and its wall time in seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


@contextmanager
def chroma(folder: Path) -> Iterator[Any]:
    """A client of that folder, closed at the end."""
    client: Any = chromadb.PersistentClient(str(folder), ClientSettings(anonymized_telemetry=False))
    try:
        yield client
    finally:
        client.close()


def build(folder: Path, settings: Settings, vectors: Vectors, order: Rows) -> None:
    """Write the vectors in that order; a vector's id is its row."""
    with chroma(folder) as client:
        choice = {"hnsw": settings.configuration}
        collection = client.create_collection(_COLLECTION, configuration=choice, embedding_function=None)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            collection.upsert(ids=[str(row) for row in part], embeddings=vectors[part])
        # What is still waiting to be indexed counts as building.
        collection.query(query_embeddings=vectors[:1], n_results=1)


@contextmanager
def opened(folder: Path, settings: Settings) -> Iterator[Any]:
    """The collection, read from the disk, with the settings' `ef_search`."""
    with chroma(folder) as client:
        collection = client.get_collection(_COLLECTION, embedding_function=None)
        collection.modify(configuration={"hnsw": {"ef_search": settings.ef_search}})
        yield collection


def ask(collection: Any, queries: Vectors) -> Rows:
    """What the index finds for all queries in one call."""
    found = collection.query(query_embeddings=queries, n_results=K, include=["distances"])
    return np.asarray(found["ids"], dtype=np.intp)


def ask_folder(folder: Path, settings: Settings, task: Task) -> dict[str, Rows]:
    """Kind -> what a freshly opened index finds."""
    with opened(folder, settings) as collection:
        return {kind: ask(collection, queries) for kind, queries in task.queries.items()}


def time_queries(folder: Path, settings: Settings, task: Task) -> dict[str, tuple[float, float]]:
    """Kind -> seconds a query: the median of single calls, and the mean in one call for all."""
    seconds = {}
    with opened(folder, settings) as collection:
        ask(collection, task.vectors[:1])
        for kind, queries in task.queries.items():
            alone = [timed(partial(ask, collection, row[None]))[1] for row in queries]
            seconds[kind] = float(np.median(alone)), timed(partial(ask, collection, queries))[1] / len(queries)
    return seconds


def shared(one: Rows, other: Rows) -> NDArray[np.float64]:
    """For each query the share of the top `K` that both found."""
    return np.asarray([len(set(a) & set(b)) / K for a, b in zip(one.tolist(), other.tolist(), strict=True)])


def mean_of(values: NDArray[np.float64]) -> dict[str, float]:
    """The mean over the queries, its standard error, and the share of queries that lack nothing."""
    stderr = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "stderr": stderr, "whole": float((values == 1.0).mean())}


def measure(folders: dict[str, Path], settings: Settings, task: Task) -> list[dict[str, Any]]:
    """One record for each kind of query, of an index that is opened afresh for every measurement."""
    found = {name: ask_folder(folder, settings, task) for name, folder in folders.items()}
    reopened = ask_folder(folders["first"], settings, task)
    seconds = time_queries(folders["first"], settings, task)
    return [
        {
            "settings": str(settings),
            "queries": kind,
            "n": len(task.queries[kind]),
            "recall": mean_of(np.mean([task.recall(kind, rows[kind]) for rows in found.values()], axis=0)),
            "overlap_same_order": mean_of(shared(found["first"][kind], found["again"][kind])),
            "overlap_shuffled": mean_of(shared(found["first"][kind], found["shuffled"][kind])),
            "overlap_reopened": mean_of(shared(found["first"][kind], reopened[kind])),
            "ms_alone": seconds[kind][0] * 1000,
            "ms_batched": seconds[kind][1] * 1000,
        }
        for kind in task.queries
    ]


def build_all(
    folder: Path, settings: Settings, task: Task, generator: np.random.Generator
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The folders of all builds, and what a build costs."""
    order = np.arange(len(task.vectors), dtype=np.intp)
    orders = {name: generator.permutation(order) if name == "shuffled" else order for name in BUILDS}
    folders = {name: folder / name for name in BUILDS}
    builds = [partial(build, folders[name], settings, task.vectors, orders[name]) for name in BUILDS]
    seconds = [timed(work)[1] for work in builds]
    with opened(folders["first"], settings) as collection:
        opening = timed(partial(ask, collection, task.vectors[:1]))[1]
    size = sum(file.stat().st_size for file in folders["first"].rglob("*") if file.is_file())
    cost = {"graph": str(settings), "build_s": seconds, "open_s": opening, "megabytes": size / 1e6}
    return folders, cost


def measure_all(task: Task, choices: Sequence[Settings], generator: np.random.Generator) -> dict[str, Any]:
    """Records and costs of all settings; prints a line for each record as it comes."""
    records, costs = [], []
    for _, same_graph in groupby(sorted(set(choices)), key=lambda settings: settings.graph):
        group = list(same_graph)
        with tempfile.TemporaryDirectory(prefix="hnsw-") as folder:
            folders, cost = build_all(Path(folder), group[0], task, generator)
            costs.append(cost)
            for settings in group:
                found = measure(folders, settings, task)
                records += found
                show_records(found)
    return {"vectors": len(task.vectors), "exact_s": task.seconds, "records": records, "costs": costs}


def show_records(records: Sequence[dict[str, Any]]) -> None:
    for record in records:
        shares = [record[name] for name in ("recall", "overlap_same_order", "overlap_shuffled", "overlap_reopened")]
        cells = [f"{share['mean']:.4f} ± {share['stderr']:.4f} ({share['whole']:.3f})" for share in shares]
        print_row(
            record["settings"], record["queries"], *cells, f"{record['ms_alone']:.2f}", f"{record['ms_batched']:.2f}"
        )


def show_exact(task: Task) -> None:
    for kind, (alone, batched) in task.seconds.items():
        print_row("exact", kind, "1", "1", "1", "1", f"{alone * 1000:.2f}", f"{batched * 1000:.2f}")


def show_costs(costs: Sequence[dict[str, Any]]) -> None:
    print_header("built with", "seconds to build, each build", "seconds to open", "MB")
    for cost in costs:
        builds = ", ".join(f"{seconds:.1f}" for seconds in cost["build_s"])
        print_row(cost["graph"], builds, f"{cost['open_s']:.2f}", f"{cost['megabytes']:.0f}")


def print_header(*names: str) -> None:
    print()
    print_row(*names)
    print_row(*["---"] * len(names))


def print_row(*cells: str) -> None:
    # A run takes minutes: each row is shown when it is known.
    print("| " + " | ".join(cells) + " |", flush=True)


def main(arguments: argparse.Namespace) -> None:
    set_environment_defaults()
    generator = np.random.default_rng(arguments.seed)
    texts = [text.split() for path in arguments.texts for text in read_texts(path)]
    most = max(arguments.vectors)
    windows = draw_windows(texts, PASSAGE_WORDS, most + arguments.queries, generator)
    short = draw_windows(texts, (QUESTION_WORDS,), arguments.queries, generator)
    embedder = open_embedder("wordllama")
    vectors = embedder.embed(windows[:most])
    queries = {"passages": embedder.embed(windows[most:]), "short": embedder.embed(short)}
    print(f"{sum(map(len, texts)):,} words; {arguments.queries} queries of each kind; top {K}; {os.cpu_count()} cores")
    print(
        "Settings: ef_construction/neighbours/ef_search. Recall: mean of the three builds. Overlap: of the first build"
    )
    print("with another. In brackets: the share of queries that lack nothing in any of the builds compared.")
    sizes = []
    for count in arguments.vectors:
        print(f"\n{count:,} vectors")
        print_header(
            "settings", "queries", "recall", "same order", "shuffled", "opened again", "ms a query", "ms batched"
        )
        task = open_task(vectors[:count], queries)
        show_exact(task)
        sizes.append(measure_all(task, arguments.settings, generator))
        show_costs(sizes[-1]["costs"])
    print("\n" + json.dumps({"chroma": chromadb.__version__, "seed": arguments.seed, "sizes": sizes}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="HNSW's recall against exact search, and the overlap of two builds.")
    handbook = ROOT / "datasets" / "handbook"
    parser.add_argument("texts", nargs="*", type=Path, default=[handbook], help="files or data-set folders")
    parser.add_argument("--vectors", nargs="+", type=int, default=[10_000, 100_000], metavar="N", help=f"at least {K}")
    parser.add_argument("--queries", type=int, default=1000, help="how many of each kind")
    parser.add_argument("--settings", nargs="+", type=Settings.parse, default=[CHROMA, OURS])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_arguments())
