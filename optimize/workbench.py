"""Everything a study needs to score one configuration with one candidate on some examples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.budget import Allocation, Budget
from optimize.candidate import Candidate, apply_candidate
from optimize.dataset import Dataset
from optimize.evaluate import Evaluation, Row, evaluate
from optimize.example import Example
from optimize.metrics import load_metric
from optimize.outcome import Entry, Phase, summarize
from optimize.progress import Progress
from optimize.run_dir import RunDir
from optimize.study_config import StudyConfig
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.summaries import open_summarizer

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec
    from programs.search import Search


class Workbench:
    """Scores configurations; each finished evaluation is kept in the run folder and never done again.

    Args:
        study: The study file.
        dataset: The data.
        runs: The folder that indexes are kept under.
        run: The study's own folder.
        lm: The task LM.
        spec: What it was opened from.
        budget: Counts the calls.
        allocation: Which examples each phase works on.
        progress: Hears what happens.
    """

    def __init__(
        self,
        study: StudyConfig,
        dataset: Dataset,
        runs: Path,
        run: RunDir,
        lm: dspy.LM,
        spec: LMSpec,
        budget: Budget,
        allocation: Allocation,
        progress: Progress,
    ) -> None:
        self.study, self.dataset, self.runs, self.run = study, dataset, runs, run
        self.lm, self.threads, self.budget, self.allocation, self.progress = (
            lm,
            spec.threads,
            budget,
            allocation,
            progress,
        )
        self.summarizer = open_summarizer(lm, spec)
        self.metric = load_metric(study.metric)
        self.examples = {example.id: example for example in dataset.examples}
        self._searches: dict[str, Search] = {}

    def search(self, config: PipelineConfig) -> Search:
        """The opened retrieval of a configuration; its index is built at most once."""
        from programs.search import open_search

        key = config.fingerprint()
        if key not in self._searches:
            found = open_search(self.runs, self.dataset.corpus, config, summarizer=self.summarizer)
            if config.top_k > len(found.index.chunks):
                self.progress.note(f"top_k {config.top_k}: there are {len(found.index.chunks)} chunks, all are shown.")
            self._searches[key] = found
        return self._searches[key]

    def program(self, config: PipelineConfig, candidate: Candidate | None = None) -> dspy.Module:
        """A fresh program over a configuration, bare or with a candidate's prompts."""
        program = build_program(self.study.program, self.search(config), abstain=self.dataset.abstains)
        if candidate is not None:
            apply_candidate(program, candidate, self.examples)
        return program

    def context(self, config: PipelineConfig) -> Any:
        """The DSPy context of a configuration: LM and prompt format."""
        import dspy

        from programs.prompt_format import FORMATS

        return dspy.context(lm=self.lm, adapter=FORMATS[config.prompt_format]())

    def evaluate(
        self, unit: str, phase: Phase, config: PipelineConfig, candidate: Candidate, examples: Sequence[Example]
    ) -> Entry:
        """Score a configuration with a candidate, or read the score where this unit was finished before."""

        def compute() -> Evaluation:
            rows: list[Row] = []

            def on_row(row: Row) -> None:
                rows.append(row)
                spent = f"{self.budget.calls}/{self.budget.lm_calls} calls"
                self.progress.working(unit, len(rows), len(examples), spent)

            program = self.program(config, candidate)
            with self.context(config):
                return evaluate(program, examples, self.metric, self.threads, on_row)

        evaluation = self.run.evaluation(unit, compute)
        error = next((row.error for row in evaluation.rows if row.error), None)
        if error is not None:
            self.progress.note(f"{unit}: {evaluation.failures} of {len(evaluation.rows)} failed; the first: {error}")
        return Entry(unit, phase, config, candidate.id, summarize(evaluation, self.allocation.groups))

    def messages(self, config: PipelineConfig, candidate: Candidate) -> list[dict[str, Any]]:
        """What the LM is sent, predictor by predictor, with placeholders for what changes with the question."""
        from programs.prompt_format import FORMATS, render

        adapter = FORMATS[config.prompt_format]()
        program = self.program(config, candidate)
        return [
            {"predictor": name, "messages": render(adapter, predictor.signature, predictor.demos)}
            for name, predictor in program.named_predictors()
        ]


class Clock:
    """Wall-clock time over all processes that worked on a study.

    Args:
        run: The study's folder, where earlier time is kept.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._earlier = float((run.read_json("clock.json") or {"seconds": 0.0})["seconds"])
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time so far."""
        return self._earlier + time.monotonic() - self._begun

    def keep(self) -> None:
        """Write it down, for the next process should this one end here."""
        self._run.write_json("clock.json", {"seconds": self.seconds})
