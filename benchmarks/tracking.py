"""What keeping a study's record takes: Optuna's journal and MLflow, with trials that cost nothing else.

`uv run python benchmarks/tracking.py [--trials 1000] [--questions 30] [--tracking-uri URI]`

Made-up rows over the sample handbook: answers, spans and numbers as a study has them, no language model and no search.
Every trial is handed over when the one before it was, so the record falls behind as far as it can. What the search
waits for is measured in two ways: inside the calls that hand a trial over, and as delay of a thread that wants to run
every two milliseconds, since the thread that logs takes processor time from all others.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optimize.data.dataset import Dataset, load_dataset
from optimize.data.example import Example
from optimize.data.splits import group_examples
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.evaluation.outcome import Entry, Outcome, Spent, summarize
from optimize.runs.run_dir import RunDir
from optimize.searching.proposals import Proposals, Told
from optimize.settings.study import Space, StudyConfig, dump_study
from optimize.tracking.tracker import Tracker, default_uri
from programs.config import PipelineConfig
from programs.environment import set_environment_defaults
from programs.types import Span

HANDBOOK = Path(__file__).parent.parent / "datasets" / "handbook"
SPACE = Space(
    splitter=["recursive", "sentence", "markdown"],
    chunk_size=[64, 96, 128, 192, 256, 384, 512],
    chunk_overlap=[0.0, 0.1, 0.25],
    retriever=["dense", "sparse", "hybrid"],
    retrieve_k=[10, 20, 40],
    reranker=["none", "lexical"],
    top_k=[1, 2, 3, 5, 8],
)
CANDIDATES = ["bare-00000000", *(f"bootstrap_fewshot-{number:08x}" for number in range(7))]
DEMOS = "\n\n".join(f"Context: {'words of a passage ' * 40}\nQuestion: {n}?\nAnswer: {n}" for n in range(4))
MESSAGES = [
    {
        "predictor": "generate",
        "messages": [{"role": "user", "content": f"{DEMOS}\n\nContext: {{{{context}}}}\nQuestion: {{{{question}}}}"}],
    }
]
TICK_S = 0.002


@dataclass
class Delays:
    """How late a thread runs that wants to run every two milliseconds."""

    late: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Delays:
        self._thread = threading.Thread(target=self._tick)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._ended.is_set():
            begun = time.perf_counter()
            time.sleep(TICK_S)
            self.late.append(time.perf_counter() - begun - TICK_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--tracking-uri", help="Instead of a new SQLite database.")
    asked = parser.parse_args()
    set_environment_defaults()
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), asked.trials, asked.questions, asked.tracking_uri)


def report(folder: Path, trials: int, questions: int, uri: str | None) -> None:
    dataset = load_dataset(HANDBOOK)
    run = RunDir(folder / "made-000000000000")
    study = StudyConfig(name="made", dataset=str(HANDBOOK), space=SPACE)
    outcome, told = make_study(dataset, run, trials, questions)
    warnings: list[str] = []
    tracker = Tracker(uri or default_uri(folder), dataset, "made", "000000000000", run.path, warnings.append)
    tracker.open(dump_study(study))
    tracker.drain()
    began, memory = tracker.times.behind_s, resident()
    with Delays() as delays:
        for entry in (outcome.baseline, *outcome.trials):
            rows = run.read_evaluation(entry.unit)
            assert rows is not None, "made just now"
            tracker.entry(entry, rows, lambda: MESSAGES)
        handed = resident()
        tracker.drain()
    times, used = tracker.times, resident()
    tracker.close(outcome, [])
    begun = time.perf_counter()
    Proposals(SPACE, "tpe", 0).keep(run.journal, "made", told, CANDIDATES)
    journal = time.perf_counter() - begun
    late = sorted(delays.late)
    lines = [
        ("MLflow opened, before the study", f"{times.open_s + began:.1f} s"),
        ("handing a trial over: mean, longest", f"{ms(times.blocked_s / times.entries)}, {ms(times.longest_s)}"),
        (
            "another thread is late meanwhile: mean, 99 %, most",
            f"{ms(sum(late) / len(late))}, {ms(late[int(0.99 * len(late))])}, {ms(late[-1])}",
        ),
        (
            "MLflow behind the search, a trial, in all",
            f"{ms((times.behind_s - began) / times.entries)}, {times.behind_s - began:.0f} s",
        ),
        ("Optuna's journal at the end, a trial, in all", f"{ms(journal / trials)}, {journal:.1f} s"),
        ("memory: all trials waiting, after logging", f"+{handed - memory:.0f} MB, +{used - memory:.0f} MB"),
        ("memory: largest of the process", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"),
        ("store: database", size(folder, "mlflow.db*")),
        ("store: artifacts", size(folder, "mlartifacts/**/*")),
        ("rows in the run folder", size(folder, "made-*/evaluations/*")),
        ("Optuna's journal", size(folder, "made-*/journal.log")),
    ]
    print(f"{trials} trials of {questions} questions")
    for name, value in lines:
        print(f"  {name:<52} {value}")
    for warning in warnings:
        print(f"  {warning}")


def make_study(dataset: Dataset, run: RunDir, trials: int, questions: int) -> tuple[Outcome, list[Told]]:
    """Rows in the run folder, and the outcome and the points that they come to."""
    every = [*dataset.validation, *dataset.test, *dataset.train]
    examples = [every[number % len(every)] for number in range(questions)][: len(every)]
    groups = group_examples(dataset.examples, {document.id: document for document in dataset.corpus.documents})
    generator, proposals = random.Random(0), Proposals(SPACE, "random", 0)
    entries, told = [], []
    for number in range(trials + 1):
        params, config, candidate = proposals.ask([], CANDIDATES)
        unit = f"trial-{number - 1:04d}" if number else "baseline"
        rows = Evaluation(tuple(make_rows(dataset, examples, config, generator)))
        run.evaluation(unit, len(rows.rows), lambda start, rows=rows: rows)  # type: ignore[misc]
        summary = summarize(rows, groups)
        phase: Any = "search" if number else "baseline"
        entries.append(Entry(unit, phase, config, candidate, summary, "", summary.score, 0.03))
        if number:
            point = {**params, "candidate": candidate}
            steps = dict.fromkeys(range(8, len(rows.rows) + 1, 8), summary.score)
            told.append(Told(point, (summary.score,), unit, steps, True))
    spent = Spent(trials * questions, trials * questions, 0, 0, 0.0, 0.0, trials * questions)
    made = Outcome(
        "made", "000000000000", dataset.name, dataset.fingerprint, "rag", "token_f1", "nobody", 0, entries[0],
        tuple(entries[1:]), spent,
    )  # fmt: skip
    return made, told


def make_rows(
    dataset: Dataset, examples: list[Example], config: PipelineConfig, generator: random.Random
) -> Iterator[Row]:
    """Passages of about the right size from random documents, a third of the answers right, one in 200 failed."""
    for example in examples:
        spans = []
        for document in generator.sample(dataset.corpus.documents, config.top_k):
            start = generator.randrange(max(1, len(document.text) - 4 * config.chunk_size))
            spans.append(Span(document.id, start, min(len(document.text), start + 4 * config.chunk_size)))
        failed, gold, tokens = generator.random() < 0.005, generator.random() < 0.5, config.chunk_size * config.top_k
        yield Row(
            example.id,
            None if failed else float(generator.random() < 0.33),
            None if failed else "an answer of a few words",
            tuple(spans),
            {"span_recall": float(gold), "gold_in_context": float(gold), "nDCG": generator.random(), "RR": 0.5},
            tokens,
            tokens + 60,
            8,
            calls=1,
            paid_calls=1,
            usd=0.0001,
            latency_s=generator.uniform(0.2, 0.6),
            error="LMServerError: made to fail" if failed else None,
        )


def resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def size(folder: Path, pattern: str) -> str:
    files = [file for file in folder.glob(pattern) if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB in {len(files)} files"


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


if __name__ == "__main__":
    main()
