"""Everything a study needs to score one configuration with one candidate on some examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.compiling.candidate import Candidate, apply_candidate
from optimize.data.dataset import Dataset
from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation, Row, evaluate
from optimize.evaluation.outcome import Phase
from optimize.metrics.table import load_metric
from optimize.runs.progress import Progress
from optimize.runs.run_dir import RunDir
from optimize.screening.foresight import Foresight
from optimize.searching.belief import Floats
from optimize.settings.study import StudyConfig
from optimize.studies.allocation import Allocation
from optimize.studies.budget import Budget
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.summaries import open_summarizer

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec
    from programs.search import Search


@dataclass(frozen=True)
class Models:
    """The language models of a study, opened.

    Attributes:
        task: Answers.
        reflection: Writes instructions.
        judge: Judges answers; None where no metric asks it.
        spec: What the task LM was opened from.
    """

    task: dspy.LM
    reflection: dspy.LM
    judge: dspy.LM | None
    spec: LMSpec

    def confirm(self) -> None:
        """See that failures at the end of some work were not the endpoint's end, before the work is kept.

        Raises:
            EndpointError: They were.
        """
        for lm in (self.task, self.reflection, self.judge):
            if lm is not None:
                lm.engine.confirm()


class Workbench:
    """Answers questions with a configuration and a candidate; what was answered is kept and never asked again.

    Args:
        study: The study file.
        dataset: The data.
        runs: The folder that indexes are kept under.
        run: The study's own folder.
        models: The language models.
        budget: Counts the calls.
        allocation: Which examples each phase works on.
        foresight: Foresees retrieval.
        progress: Hears what happens.
        seconds_left: Wall-clock time that the search may still take, the verdict's deducted; infinite without a limit.
    """

    def __init__(
        self,
        study: StudyConfig,
        dataset: Dataset,
        runs: Path,
        run: RunDir,
        models: Models,
        budget: Budget,
        allocation: Allocation,
        foresight: Foresight,
        progress: Progress,
        seconds_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.study, self.dataset, self.runs, self.run, self.models = study, dataset, runs, run, models
        self.budget, self.allocation, self.progress = budget, allocation, progress
        self._foresight, self._seconds_left = foresight, seconds_left
        self.summarizer = open_summarizer(models.task, models.spec)
        cache = runs / "cache" / "vectors"
        self.metric = load_metric(study.metric, models.judge, cache=cache)
        self.guards = [load_metric(name, models.judge, cache=cache) for name in study.guards]
        self.examples = {example.id: example for example in dataset.examples}
        self.candidates: dict[str, Candidate] = {}
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

        return dspy.context(lm=self.models.task, adapter=FORMATS[config.prompt_format]())

    def ask(
        self, unit: str, phase: Phase, config: PipelineConfig, candidate: str, examples: Sequence[Example]
    ) -> Evaluation:
        """Answer the examples and score the answers; those of this unit that were answered before are read."""

        def compute(start: int) -> Evaluation:
            asked = examples[start:]
            done = 0

            def on_row(row: Row) -> None:
                nonlocal done
                done += 1
                self.progress.working(unit, start + done, len(examples), str(self.budget.limits()[0]))

            program = self.program(config, self.candidates[candidate])
            also = self.guards if phase in ("confirm", "test") else ()
            with self.context(config):
                found = evaluate(
                    program, asked, self.metric, self.models.spec.threads, on_row, also, self.study.repeats
                )
            # Before it is kept: what an endpoint's end made fail is no failure of the answers.
            self.models.confirm()
            return found

        evaluation = self.run.evaluation(unit, len(examples), compute)
        error = next((row.error for row in evaluation.rows if row.error), None)
        if error is not None:
            self.progress.note(f"{unit}: {evaluation.failures} of {len(evaluation.rows)} failed; the first: {error}")
        return evaluation

    def affords(self, unit: str, count: int) -> bool:
        """Whether so many search questions may be asked, the verdict kept affordable; answered ones cost nothing."""
        missing = count - self.run.answered(unit)
        if missing <= 0:
            return True
        return self.budget.affords(missing * self.allocation.calls_per_question) and self._seconds_left() > 0

    def foresee(self, config: PipelineConfig, examples: Sequence[Example]) -> Floats:
        """What is known without an LM call; questions x signals."""
        return self._foresight.signals(config, examples)

    def tokens(self, config: PipelineConfig, candidate: str) -> float:
        """About how many prompt tokens a question will take."""
        return self._foresight.prompt_tokens(config, self.candidates[candidate])

    def messages(self, config: PipelineConfig, candidate: Candidate) -> list[dict[str, Any]]:
        """What the LM is sent, predictor by predictor, with placeholders for what changes with the question."""
        from programs.prompt_format import FORMATS, render

        adapter = FORMATS[config.prompt_format]()
        program = self.program(config, candidate)
        return [
            {"predictor": name, "messages": render(adapter, predictor.signature, predictor.demos)}
            for name, predictor in program.named_predictors()
        ]
