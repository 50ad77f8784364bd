"""A study from end to end: baseline, screen, search and compiling in turns, confirm, test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from optimize.compiling.candidate import Candidate, read_candidate
from optimize.compiling.recombining import recombine
from optimize.compiling.run import run_optimizer
from optimize.compiling.tally import CompileFailedError
from optimize.compiling.task import CompileTask, teachable
from optimize.data.dataset import Dataset
from optimize.evaluation.outcome import Outcome, Spent
from optimize.reporting.screen import write_screen
from optimize.runs.progress import Progress
from optimize.runs.run_dir import RunDir
from optimize.screening.foresight import Foresight
from optimize.screening.screen import Screen
from optimize.screening.served import AGREES, COMPARED, agreement
from optimize.searching.explorer import Explorer, Turn, turns_of
from optimize.searching.point import BASELINE, Point
from optimize.searching.proposals import Proposals
from optimize.searching.search import Search
from optimize.searching.starting import starting_points
from optimize.settings.space import space_size
from optimize.settings.study import StudyConfig, dump_study
from optimize.studies.accounts import open_allocation, open_budget, verdict_begun
from optimize.studies.allocation import reserve_check
from optimize.studies.closing import Closing, void
from optimize.studies.identity import study_fingerprint
from optimize.studies.pace import Pace
from optimize.studies.prices import turn_calls
from optimize.studies.telling import Listener, Teller
from optimize.studies.workbench import Models, Workbench
from programs.config import PipelineConfig, fingerprint
from programs.errors import BudgetExhaustedError
from programs.lm import LMSpec, describe_endpoint, open_lm
from programs.response_cache import ResponseCache
from programs.search import open_search

INSTRUCTION_TOKENS = 512
"""What a task LM that also writes instructions may write."""


@dataclass(frozen=True)
class Phases:
    """Which parts of a study are done.

    Attributes:
        compile: Whether optimizers make candidates; else the prompts stay as written.
        search: Whether the space is searched; else the baseline's pipeline is kept.
        verdict: Whether confirm and test follow.
    """

    compile: bool = True
    search: bool = True
    verdict: bool = True

    @property
    def command(self) -> str:
        """The command that does these parts."""
        return "sweep" if not self.compile else "optimize" if self.search else "compile"


@dataclass
class Study:
    """One study at work in its folder.

    Attributes:
        config: The study file.
        dataset: The data.
        spec: The task LM.
        runs: The folder that everything is kept under.
        progress: Hears what happens.
        listener: Is told of every finished evaluation.
        phases: Which parts are done.
        reflection: The LM that writes instructions; None: the task LM.
        judge: The LM that judges answers; None: no metric asks one.
    """

    config: StudyConfig
    dataset: Dataset
    spec: LMSpec
    runs: Path
    progress: Progress
    listener: Listener | None = None
    phases: Phases = Phases()
    reflection: LMSpec | None = None
    judge: LMSpec | None = None
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A sweep, a compilation and a whole study over one file are three studies: their trials are not the same.
        parts = asdict(self.phases)
        specs = {"task": self.spec, "reflection": self.reflection, "judge": self.judge}
        self.fingerprint = study_fingerprint(self.config, self.dataset, specs, parts)
        self.run = RunDir(self.runs / f"{self.config.name}-{self.fingerprint}")

    def execute(self) -> Outcome:
        """Do what is left to do and say what was found.

        Raises:
            RagwrightError: Something in the way that a person can mend; what was paid for is kept.
        """
        with self.run.locked():
            self.pace = Pace(self.run, self.config.budget.minutes, self.spec.threads)
            self.allocation = open_allocation(self.config, self.dataset, self.run)
            if not self.phases.verdict:
                self.allocation = self.allocation.without_verdict("this command looks no further than the search")
            self.budget = open_budget(self.config.budget, self.run, self.allocation.reserved_calls)
            self.run.write_text("study.yaml", dump_study(self.config))
            self.run.write_json("command.json", self.phases.command)
            self.screen = self._open_screen()
            self.bench = self._bench()
            try:
                return self._phases()
            finally:
                self.pace.clock.keep()

    # -- what is needed before the first question --

    def _open_screen(self) -> Screen | None:
        if not any(example.evidence for example in self.dataset.validation):
            self._warn(
                "no validation question has evidence, so retrieval is not screened: try `ragwright data locate`."
            )
            return None
        return Screen(self.config, self.dataset, self.runs, self.progress)

    def _bench(self) -> Workbench:
        cache = ResponseCache(self.runs / "cache" / "responses.sqlite")

        def opened(spec: LMSpec, role: Any) -> Any:
            return open_lm(spec, cache=cache, role=role, admit=self.budget.admit, on_call=self.budget.record)

        writer = self.reflection or _writing(self.spec)
        judge = opened(self.judge, "judge") if self.judge is not None else None
        models = Models(opened(self.spec, "task"), opened(writer, "reflection"), judge, self.spec)
        return Workbench(
            self.config,
            self.dataset,
            self.runs,
            self.run,
            models,
            self.budget,
            self.allocation,
            Foresight(self.screen),
            self.progress,
            self._seconds_left,
        )

    # -- the phases --

    def _phases(self) -> Outcome:
        self.bare = read_candidate(self.bench.program(self.baseline_config), {})
        self._add([self.bare])
        self.search = Search(
            self.bench,
            Proposals(self.config.space, self.config.sampler, self.config.seed) if self.phases.search else None,
            self.allocation.search,
            [self.bare.id],
            self._on_step,
            self.config.trials,
            frugal=bool(self.config.minimize),
        )
        self.teller = Teller(self.bench, self.search, self.pace, self.listener)
        baseline = self._baseline()
        first = self._lay(baseline)
        self._explore(baseline, first)
        outcome = self._outcome(baseline)
        if self.allocation.verdict_possible and self.search.trials:
            try:
                self.budget.reserved = 0
                closing = Closing(self.bench, self.search, baseline, self.fingerprint, self.teller, self._warn)
                outcome = closing.close(outcome)
            except BudgetExhaustedError as error:
                # Calls that fail are tried again and count: then even what was reserved may not do.
                self._warn(f"the verdict could not be finished, and what it has asked is kept: {error}")
        elif self.phases.verdict and self.allocation.why_not:
            self._warn(f"nothing could be confirmed: {self.allocation.why_not}.")
        if outcome.winner is not None:
            outcome = replace(outcome, served_agreement=self._served(outcome.winner.config))
        outcome = replace(outcome, spent=self._spent(), warnings=tuple(dict.fromkeys(self.warnings)))
        self.run.write_json("outcome.json", outcome.as_json())
        return outcome

    @property
    def baseline_config(self) -> PipelineConfig:
        """The pipeline of the baseline."""
        return PipelineConfig(**self.config.baseline.model_dump()).canonical()

    def _baseline(self) -> Point:
        examples = self.allocation.search
        self.progress.phase("baseline", f"the setting to beat, on {len(examples)} search questions")
        point = self.search.begin(self.baseline_config, self.bare.id)
        entry = self.teller.finished(BASELINE, "baseline", point, point.rows)
        if (unfair := void(entry)) is not None:
            self._warn(unfair)
        if (why := self._too_dear(point)) is not None:
            self.allocation = self.bench.allocation = self.allocation.without_verdict(why)
            self.budget.reserved = 0
        return point

    def _too_dear(self, baseline: Point) -> str | None:
        """Why there can be no verdict, now that the baseline has shown what a question takes."""
        if not self.allocation.verdict_possible or verdict_begun(self.run):
            return None
        return reserve_check(self.allocation, self.budget, self.pace.a_question(baseline), self.pace.left)

    def _lay(self, baseline: Point) -> PipelineConfig:
        """Put the points to begin with on the table; the pipeline to compile on first is the first of them."""
        if not self.phases.search:
            return baseline.config
        shortlist = self._screened() if self.screen is not None else ()
        points = starting_points(self.config, self.dataset, self.run, shortlist)
        self.search.lay(points)
        return PipelineConfig.from_params(dict(points[0])).canonical() if points else baseline.config

    def _screened(self) -> tuple[dict[str, Any], ...]:
        """Points of the space whose retrieval is worth an LM call."""
        assert self.screen is not None, "there is evidence"
        wanted = self.config.screen.configurations
        self.progress.phase("screen", f"retrieval alone, up to {wanted} configurations, no LM call")
        screened = self.screen.run()
        write_screen(screened, self.config.name, self.config.smallest_effect)
        self.progress.note(
            f"{len(screened.points)} configurations, {screened.measure} {screened.baseline.quality:.3f} (baseline) to "
            f"{max(point.quality for point in screened.points):.3f}; {len(screened.shortlist)} go first into the search"
        )
        return screened.shortlist

    def _explore(self, baseline: Point, first: PipelineConfig) -> None:
        size = space_size(self.config, 1) if self.phases.search else 1
        self.progress.phase(
            "search", f"{size} configurations x candidates, {self.search.rung} questions a step, compiling in turns"
        )
        named = self.config.optimizer_params() if self.phases.compile else {}
        turns = turns_of(named, turn_calls(self.config, self.dataset, len(self.allocation.train)))
        try:
            Explorer(self.search, turns, self._compile, self.bare.id, baseline, first).run()
        except BudgetExhaustedError as error:
            self._warn(f"the search ended early: {error}")
        if not self.search.trials:
            self._warn("the budget ended before the first trial: allow more calls, money or minutes.")
        told = self.search.told()
        if self.phases.search and told:
            name = f"{self.config.name}-{fingerprint(self.config.space.model_dump(mode='json'))}"
            Proposals(self.config.space, self.config.sampler, 0).keep(
                self.run.journal, name, told, list(self.bench.candidates)
            )

    def _compile(self, number: int, turn: Turn, config: PipelineConfig) -> tuple[Sequence[str], int] | None:
        """Let an optimizer make candidates on a pipeline; what it made before is read."""
        name = f"{number:02d}-{turn.name}"
        kept = self.run.read_candidates(name)
        if kept is None:
            seconds = turn.most_calls * self.pace.a_question(self.search.leader())
            if turn.most_calls and not (self.budget.affords(turn.most_calls) and seconds < self._seconds_left()):
                return None
            self.progress.phase(
                "compile", f"{turn.name}, at most {turn.most_calls} calls, on {config.chunk_size}x{config.top_k}"
            )
            before, problem = self.budget.ledger, ""
            try:
                with self.bench.context(config):
                    made = run_optimizer(self._task(config), turn.name, turn.params).candidates
            except CompileFailedError as error:
                made, problem = [], str(error)
            self.bench.models.confirm()
            self.budget.check()
            made += [child for child in recombine([*self._best_candidates(), *made], 2) if made]
            self.run.save_candidates(name, made, self.budget.ledger - before, problem, config)
            kept = self.run.read_candidates(name)
            assert kept is not None, "saved just now"
        made, spent, problem = kept
        if problem:
            self._warn(problem)
        self._add(made)
        self.progress.note(f"{turn.name}: {', '.join(c.id for c in made) or 'nothing new'}, {spent.total.calls} calls")
        return [candidate.id for candidate in made], spent.total.calls

    def _task(self, config: PipelineConfig) -> CompileTask:
        return CompileTask(
            build=lambda: self.bench.program(config),
            train=teachable(self.allocation.train, self.bench.search(config)),
            metric=self.bench.metric,
            seed=self.config.seed,
            reflection=self.bench.models.reflection,
            folder=self.run.path / "compile",
            threads=self.spec.threads,
        )

    def _best_candidates(self) -> list[Candidate]:
        """The candidates of the best trials, best first."""
        ranked = sorted(self.search.trials, key=lambda point: -self.search.estimate(point)[0])
        return [self.bench.candidates[one] for one in dict.fromkeys(point.candidate for point in ranked)]

    def _seconds_left(self) -> float:
        baseline = self.search.points[0]
        return self.pace.left_for_search(self.allocation, baseline, self.search.leader())

    def _outcome(self, baseline: Point) -> Outcome:
        return Outcome(
            study=self.config.name,
            fingerprint=self.fingerprint,
            dataset=self.dataset.name,
            dataset_fingerprint=self.dataset.fingerprint,
            program=self.config.program,
            metric=self.bench.metric.name,
            lm=describe_endpoint(self.spec),
            seed=self.config.seed,
            baseline=self.teller.believed(baseline),
            trials=self.teller.trials(),
            optimism=self.teller.optimism(),
            spent=self._spent(),
        )

    def _spent(self) -> Spent:
        by_role = self.run.spent()
        total = by_role.total
        return Spent(
            calls=total.calls,
            paid_calls=total.paid_calls,
            prompt_tokens=total.prompt_tokens,
            completion_tokens=total.completion_tokens,
            usd=total.usd,
            seconds=self.pace.clock.seconds,
            calls_allowed=self.config.budget.lm_calls,
            by_role=by_role,
            lm_seconds=sum(evaluation.total("latency_s") for _, evaluation in self.run.finished()),
        )

    def _on_step(self, asked: Point, leader: Point) -> None:
        self.teller.step(asked, leader)

    def _add(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            self.bench.candidates[candidate.id] = candidate
            candidate.save(self.run.candidates)

    def _served(self, config: PipelineConfig) -> float | None:
        """How well the approximate search that the export will use agrees with the exact one; None for words alone."""
        if not config.needs_vectors:
            return None
        served = open_search(self.runs, self.dataset.corpus, config, served=True, summarizer=self.bench.summarizer)
        questions = [example.question for example in self.dataset.validation[:COMPARED]]
        found = agreement(self.bench.search(config), served, questions)
        if found < AGREES:
            self._warn(f"search in use finds {found:.1%} of what was found here: its index is approximate.")
        return found

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.note(text)


def _writing(spec: LMSpec) -> LMSpec:
    """The task LM as one that writes instructions: they are longer than answers, and asked for in a chat."""
    most = spec.max_tokens
    return replace(spec, endpoint="chat", max_tokens=None if most is None else max(INSTRUCTION_TOKENS, most))
