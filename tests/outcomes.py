"""A small data set and a finished study over it, made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optimize.data.dataset import Dataset, load_dataset, write_examples
from optimize.data.example import Example, Place
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.evaluation.ledger import Ledger, Spending
from optimize.evaluation.outcome import Entry, Guard, Outcome, Phase, Spent, summarize
from optimize.inference.statistics import judge, paired_difference
from optimize.runs.run_dir import RunDir
from optimize.settings.study import StudyConfig, dump_study
from programs.config import PipelineConfig
from programs.types import Span

BASELINE = PipelineConfig(top_k=3, retrieve_k=3, prompt_format="compact")
WINNER = PipelineConfig(
    chunk_size=64, top_k=1, retriever="sparse", embedder="none", prompt_format="compact"
).canonical()
SPENT = Ledger({"task": Spending(100, 80, 4000, 300, 0.1), "reflection": Spending(20, 16, 800, 60, 0.02)})
NASTY = "Is <script>alert('x')</script> | *bold* `code` safe?"


def make_dataset(folder: Path, documents: int = 12) -> Dataset:
    """One fact and one question a document; one test question is full of markup."""
    (folder / "corpus").mkdir(parents=True)
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for split, examples in splits.items():
        for n in range(documents):
            doc_id, name = f"{split}-{n}.md", f"tower {split} {n}"
            text = f"The {name} was built in {1800 + n}. Nothing else is known of it."
            (folder / "corpus" / doc_id).write_text(text, encoding="utf-8")
            quote = str(1800 + n)
            span = Span(doc_id, text.index(quote), text.index(quote) + 4)
            question = NASTY if split == "test" and n == 4 else f"When was the {name} built?"
            examples.append(Example(f"{split}-{n}", question, (quote,), ((Place(span, quote),),)))
        write_examples(folder / f"{split}.jsonl", examples)
    return load_dataset(folder)


def make_rows(examples: tuple[Example, ...], right: int) -> Evaluation:
    """The first `right` questions are answered, the others with nonsense."""
    rows = []
    for n, example in enumerate(examples):
        place = example.evidence[0][0].span
        rows.append(
            Row(
                example_id=example.id,
                score=float(n < right),
                answer=example.answers[0] if n < right else "<b>nonsense</b>",
                spans=(Span(place.doc_id, 0, place.end),),
                measures={"span_recall": 1.0, "nDCG@10": 0.5},
                context_tokens=20,
                prompt_tokens=40,
                completion_tokens=3,
                calls=1,
                paid_calls=1,
                usd=0.001,
                latency_s=0.25,
            )
        )
    return Evaluation(tuple(rows))


class Studied:
    """A finished study with its run folder. The last trial was asked half of the questions only.

    Attributes:
        outcome: With all phases.
        evaluations: Unit -> rows.
    """

    def __init__(self, folder: Path, documents: int = 12) -> None:
        self.dataset = make_dataset(folder / "handmade", documents)
        self.run = RunDir(folder / "runs" / "towers-0123456789ab")
        self.run.write_text("study.yaml", dump_study(StudyConfig(name="towers", dataset=str(self.dataset.path))))
        self.evaluations: dict[str, Evaluation] = {}
        self.outcome = self._outcome(documents)

    @property
    def begun(self) -> Outcome:
        """The same study while it searches."""
        o = self.outcome
        unknown = {"winner": None, "test_baseline": None, "test_winner": None, "difference": None, "verdict": None}
        nothing = {"finalists": (), "test_openings": 0, "warnings": (), "choice": "", "guards": ()}
        return replace(o, trials=o.trials[:1], **nothing, **unknown)  # type: ignore[arg-type]

    @property
    def confirmed(self) -> Outcome:
        """The same study before its test."""
        unknown = {"test_baseline": None, "test_winner": None, "difference": None, "verdict": None}
        return replace(self.outcome, test_openings=0, guards=(), **unknown)  # type: ignore[arg-type]

    @property
    def kept(self) -> Outcome:
        """The same study, had confirm chosen the baseline."""
        finalists = tuple(
            replace(entry, estimate=estimate, spread=0.03)
            for entry, estimate in zip(self.outcome.finalists, (0.41, 0.39), strict=True)
        )
        return replace(self.confirmed, winner=None, finalists=finalists, verdict="not shown better")

    def entry(
        self,
        unit: str,
        phase: Phase,
        config: PipelineConfig,
        candidate: str,
        right: int,
        estimate: float | None = None,
        asked: int | None = None,
    ) -> Entry:
        """An evaluation, kept in the run folder."""
        whole = self.dataset.test if phase == "test" else self.dataset.validation
        examples = whole[:asked]
        evaluation = self.run.evaluation(unit, len(examples), lambda start: make_rows(examples, right))
        self.evaluations[unit] = evaluation
        summary = summarize(evaluation, {e.id: e.id for e in examples})
        note = f"asked {asked} of {len(whole)} questions" if asked else ""
        return Entry(unit, phase, config, candidate, summary, note, estimate, None if estimate is None else 0.04)

    def _outcome(self, n: int) -> Outcome:
        new = "labeled_fewshot-89abcdef"
        trials = (
            self.entry("trial-0000", "search", replace(BASELINE, top_k=1, retrieve_k=1), "bare-01234567", n // 2, 0.45),
            self.entry("trial-0001", "search", WINNER, new, n - 1, 0.8),
            self.entry("trial-0002", "search", replace(BASELINE, top_k=2), new, 1, 0.3, n // 2),
        )
        finalists = (
            self.entry("confirm-base", "confirm", BASELINE, "bare-01234567", n // 4),
            self.entry("confirm-new", "confirm", WINNER, new, n - 2),
        )
        test_base = self.entry("test-base", "test", BASELINE, "bare-01234567", n // 4)
        test_new = self.entry("test-new", "test", WINNER, new, n - 2)
        old = self.evaluations["test-base"].scores
        gaps = [score - old[i] for i, score in self.evaluations["test-new"].scores.items()]
        difference = paired_difference(gaps, list(old))
        return Outcome(
            study="towers",
            fingerprint="0123456789ab",
            dataset=self.dataset.name,
            dataset_fingerprint=self.dataset.fingerprint,
            program="rag",
            metric="token_f1",
            lm="this process (model.gguf)",
            seed=0,
            baseline=self.entry("baseline", "baseline", BASELINE, "bare-01234567", n // 3, 0.35),
            trials=trials,
            spent=Spent(120, 96, 4800, 360, 0.12, 90.0, 600, SPENT, lm_seconds=75.0),
            choice="the best estimate: no cheaper one is shown to lose no more than 0.02",
            optimism=0.07,
            guards=(Guard("exact_match", 0.1, difference, "held"),),
            finalists=finalists,
            winner=finalists[1],
            test_baseline=test_base,
            test_winner=test_new,
            difference=difference,
            verdict=judge(difference, 0.05),
            test_openings=2,
            warnings=("a <warning>",),
        )
