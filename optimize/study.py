"""A study from end to end: baseline, screen, compile, search, confirm, test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from optimize.budget import Allocation, Budget, allocate
from optimize.candidate import Candidate, read_candidate
from optimize.compile import CompileTask, compile_candidates, teachable
from optimize.dataset import Dataset
from optimize.evaluate import Evaluation
from optimize.identity import calls_per_question, study_fingerprint
from optimize.openings import count_opening
from optimize.outcome import Entry, Outcome, Spent
from optimize.progress import Progress
from optimize.run_dir import RunDir
from optimize.screen import Screen
from optimize.screen_report import write_screen
from optimize.search import search
from optimize.search_space import mean_context, space_size
from optimize.served import AGREES, COMPARED, agreement
from optimize.statistics import judge, paired_difference
from optimize.study_config import StudyConfig, dump_study
from optimize.workbench import Clock, Workbench
from programs.config import PipelineConfig
from programs.lm import LMSpec, describe_endpoint, open_lm
from programs.response_cache import ResponseCache
from programs.search import open_search


class Listener(Protocol):
    """Is told of every finished evaluation, such as MLflow. It never decides."""

    def entry(self, entry: Entry, evaluation: Evaluation, messages: Callable[[], list[dict[str, Any]]]) -> None:
        """An evaluation is finished; `messages` renders what the LM is sent."""


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
    """

    config: StudyConfig
    dataset: Dataset
    spec: LMSpec
    runs: Path
    progress: Progress
    listener: Listener | None = None
    phases: Phases = Phases()
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A sweep, a compilation and a whole study over one file are three studies: their trials are not the same.
        parts = asdict(self.phases)
        self.fingerprint = study_fingerprint(self.config, self.dataset, self.spec, parts)
        self.run = RunDir(self.runs / f"{self.config.name}-{self.fingerprint}")

    def execute(self) -> Outcome:
        """Do what is left to do and say what was found.

        Raises:
            RagwrightError: Something in the way that a person can mend; what was paid for is kept.
        """
        with self.run.locked():
            self.clock = Clock(self.run)
            self.allocation = self._allocation()
            self.budget = self._budget()
            self.run.write_text("study.yaml", dump_study(self.config))
            cache = ResponseCache(self.runs / "cache" / "responses.sqlite")
            self.lm = open_lm(self.spec, cache=cache, admit=self.budget.admit, on_call=self.budget.record)
            self.bench = self._bench()
            try:
                return self._phases()
            finally:
                self.clock.keep()

    def _phases(self) -> Outcome:
        baseline = self._baseline()
        shortlist = self._screen() if self.phases.search else ()
        candidates = self._compile() if self.phases.compile else {self.bare.id: self.bare}
        trials = self._search(candidates, baseline, shortlist)
        outcome = self._outcome(baseline, trials)
        if self.phases.verdict and trials:
            outcome = self._verdict(outcome, candidates)
        if outcome.winner is not None:
            served = self._served(outcome.winner.config)
            outcome = replace(outcome, served_agreement=served, warnings=tuple(dict.fromkeys(self.warnings)))
        self.run.write_json("outcome.json", outcome.as_json())
        return outcome

    def _allocation(self) -> Allocation:
        """The examples of each phase; those of the first process hold for all later ones, whatever their budget."""
        allocation = allocate(self.config, self.dataset, calls_per_question(self.config, self.dataset))
        kept = self.run.read_json("examples.json")
        if kept is None:
            self.run.write_json("examples.json", allocation.ids())
            return allocation
        by_id = {example.id: example for example in self.dataset.examples}
        parts = {name: tuple(by_id[i] for i in ids) for name, ids in kept.items()}
        return Allocation(
            **parts,
            calls_per_question=allocation.calls_per_question,
            finalists=allocation.finalists,
            groups=allocation.groups,
        )

    def _budget(self) -> Budget:
        finished = [evaluation for _, evaluation in self.run.finished()]
        calls = sum(int(evaluation.total("calls")) for evaluation in finished) + self.run.compile_calls()
        money = sum(evaluation.usd or 0.0 for evaluation in finished)
        budget = Budget(self.config.budget.lm_calls, self.config.budget.usd, calls, money)
        budget.reserved = self.allocation.reserved_calls if self.phases.verdict else 0
        return budget

    def _bench(self) -> Workbench:
        return Workbench(
            self.config,
            self.dataset,
            self.runs,
            self.run,
            self.lm,
            self.spec,
            self.budget,
            self.allocation,
            self.progress,
        )

    @property
    def baseline_config(self) -> PipelineConfig:
        """The pipeline of the baseline."""
        return PipelineConfig(**self.config.baseline.model_dump()).canonical()

    def _baseline(self) -> Entry:
        examples = self.allocation.search
        self.progress.phase("baseline", f"the setting to beat, on {len(examples)} search questions")
        program = self.bench.program(self.baseline_config)
        self.bare = read_candidate(program, {})
        self.bare.save(self.run.candidates)
        entry = self.bench.evaluate("baseline", "baseline", self.baseline_config, self.bare, examples)
        self._tell(entry, self.bare)
        self.progress.entry(entry, best=False)
        self._fairness(entry)
        return entry

    def _fairness(self, entry: Entry) -> None:
        s = entry.summary
        if not s.answers:
            self._warn(
                f"the baseline failed on {s.failures} and answered {s.empty_answers} of {s.n} questions with nothing: "
                "a comparison with it is void. Give the study a baseline that answers, such as another prompt_format."
            )

    def _screen(self) -> tuple[dict[str, Any], ...]:
        """Points of the space whose retrieval is worth an LM call; none where retrieval cannot be measured."""
        if not any(example.evidence for example in self.dataset.validation):
            self._warn(
                "no validation question has evidence, so retrieval is not screened: try `ragwright data locate`."
            )
            return ()
        wanted = self.config.screen.configurations
        self.progress.phase("screen", f"retrieval alone, up to {wanted} configurations, no LM call")
        screened = Screen(self.config, self.dataset, self.runs, self.progress).run()
        write_screen(screened, self.config.name, self.config.smallest_effect)
        self.progress.note(
            f"{len(screened.points)} configurations, {screened.measure} {screened.baseline.quality:.3f} (baseline) to "
            f"{max(point.quality for point in screened.points):.3f}; {len(screened.shortlist)} go first into the search"
        )
        return screened.shortlist

    def _compile(self) -> dict[str, Candidate]:
        """Candidates by id, the bare program first."""
        found = {self.bare.id: self.bare}
        for name, params in self.config.optimizer_params().items():
            made = self.run.read_candidates(name)
            if made is None:
                self.progress.phase("compile", f"{name} on {len(self.allocation.train)} training questions")
                search = self.bench.search(self.baseline_config)
                task = CompileTask(
                    lambda: self.bench.program(self.baseline_config),
                    teachable(self.allocation.train, search),
                    self.bench.metric,
                    self.config.seed,
                )
                with self.bench.context(self.baseline_config):
                    made, calls = compile_candidates(task, name, params)
                self.run.save_candidates(name, made, calls)
            found |= {candidate.id: candidate for candidate in made}
        self.progress.phase("candidates", ", ".join(found))
        return found

    def _search(
        self, candidates: dict[str, Candidate], baseline: Entry, shortlist: Sequence[Mapping[str, Any]]
    ) -> list[Entry]:
        examples = self.allocation.search
        size = space_size(self.config, len(candidates)) if self.phases.search else len(candidates) - 1
        self.progress.phase("search", f"{size} points (configuration x candidate), {len(examples)} questions each")
        best = baseline.summary.score

        def on_entry(entry: Entry) -> None:
            nonlocal best
            better = entry.summary.score > best
            best = max(best, entry.summary.score)
            self._tell(entry, candidates[entry.candidate])
            self.progress.entry(entry, best=better)
            self.clock.keep()

        if self.phases.search:
            trials = search(self.bench, candidates, self._affords, on_entry, shortlist)
        else:
            trials = self._score_candidates(candidates, on_entry)
        if not trials:
            self._warn("the budget ended before the first trial: allow more calls, money or minutes.")
        return trials

    def _score_candidates(self, candidates: dict[str, Candidate], on_entry: Callable[[Entry], None]) -> list[Entry]:
        """Every candidate but the bare one under the baseline's pipeline: what `compile` compares."""
        entries = []
        for candidate in [c for c in candidates.values() if c.id != self.bare.id]:
            if not self._affords():
                break
            unit = f"candidate-{candidate.id}"
            entries.append(self.bench.evaluate(unit, "search", self.baseline_config, candidate, self.allocation.search))
            on_entry(entries[-1])
        return entries

    def _affords(self) -> bool:
        """Whether one more trial leaves enough calls, money and time for the verdict."""
        if not self.budget.affords(self.allocation.trial_calls):
            return False
        minutes = self.config.budget.minutes
        return minutes is None or self.clock.seconds + self._seconds_ahead() <= 60 * minutes

    def _seconds_ahead(self) -> float:
        """What one more trial and the verdict will take, at the pace of the baseline and of the trials so far.

        The first trial's pace is the baseline's, as much faster as the space's contexts are shorter.
        """
        paces = {unit: e.total("latency_s") / len(e.rows) / self.spec.threads for unit, e in self.run.finished()}
        slow = paces["baseline"]
        trials = [pace for unit, pace in paces.items() if unit.startswith(("trial-", "candidate-"))]
        baseline = self.config.baseline
        shorter = min(1.0, mean_context(self.config.space) / (baseline.chunk_size * baseline.top_k))
        usual = sum(trials) / len(trials) if trials else slow * shorter
        part = self.allocation
        confirm = len(part.confirm) * (slow + part.finalists * usual)
        verdict = confirm + len(part.test) * (slow + usual) if self.phases.verdict else 0.0
        return len(part.search) * usual + verdict

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

    def _verdict(self, outcome: Outcome, candidates: dict[str, Candidate]) -> Outcome:
        self.budget.reserved = 0
        finalists = self._confirm(outcome, candidates)
        contenders = [entry for entry in finalists[1:] if self._valid(entry)]
        if not contenders:
            self._warn("no finalist answered enough of the confirm questions: there is no winner.")
            return replace(outcome, finalists=tuple(finalists), warnings=tuple(self.warnings), spent=self._spent())
        winner = max(contenders, key=lambda entry: (entry.summary.score, -entry.summary.prompt_tokens))
        if winner.summary.score <= finalists[0].summary.score:
            self._warn(
                "on the confirm questions no finalist scored above the baseline: the lead of the search did not hold."
            )
        return self._test(replace(outcome, finalists=tuple(finalists), winner=winner), candidates)

    def _confirm(self, outcome: Outcome, candidates: dict[str, Candidate]) -> list[Entry]:
        """The baseline, then the best trials, on examples that the search has not seen."""
        examples = self.allocation.confirm
        trials = sorted(filter(self._valid, outcome.trials), key=lambda e: (-e.summary.score, e.summary.prompt_tokens))
        chosen = trials[: self.config.finalists]
        self.progress.phase("confirm", f"the best {len(chosen)} and the baseline on {len(examples)} new questions")
        entries = []
        for entry in [outcome.baseline, *chosen]:
            entries.append(self._again("confirm", entry, candidates, examples))
        return entries

    def _again(self, phase: Any, entry: Entry, candidates: dict[str, Candidate], examples: Any) -> Entry:
        """Score an entry's configuration and candidate on other examples."""
        candidate = candidates.get(entry.candidate, self.bare)
        unit = f"{phase}-{entry.config.fingerprint()}-{candidate.id}"
        found = self.bench.evaluate(unit, phase, entry.config, candidate, examples)
        self._tell(found, candidate)
        self.progress.entry(found, best=False)
        self.clock.keep()
        return found

    def _test(self, outcome: Outcome, candidates: dict[str, Candidate]) -> Outcome:
        """The one look at the test split: the winner and the baseline, on the same questions."""
        assert outcome.winner is not None, "a winner is chosen before the test"
        examples = self.allocation.test
        winner = outcome.winner
        look = f"{self.fingerprint}/{winner.config.fingerprint()}-{winner.candidate}"
        openings = count_opening(self.runs, self.dataset.fingerprint, look)
        self.progress.phase("test", f"the winner and the baseline on {len(examples)} questions never tuned on")
        base = self._again("test", outcome.baseline, candidates, examples)
        new = self._again("test", winner, candidates, examples)
        self._fairness(base)
        difference = self._difference(base, new)
        void = not base.summary.answers or not self._valid(new)
        return replace(
            outcome,
            test_baseline=base,
            test_winner=new,
            difference=difference,
            verdict=None if void else judge(difference, self.config.smallest_effect),
            test_openings=openings,
            spent=self._spent(),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _difference(self, base: Entry, new: Entry) -> Any:
        old, scores = self._scores(base), self._scores(new)
        both = [example_id for example_id in old if example_id in scores]
        if len(both) < len(self.allocation.test):
            self._warn(f"{len(self.allocation.test) - len(both)} test questions failed on one side and are left out.")
        groups = self.allocation.groups
        return paired_difference([scores[i] - old[i] for i in both], [groups[i] for i in both])

    def _scores(self, entry: Entry) -> dict[str, float]:
        evaluation = self.run.read_evaluation(entry.unit)
        assert evaluation is not None, "scored just now"
        return evaluation.scores

    def _outcome(self, baseline: Entry, trials: list[Entry]) -> Outcome:
        return Outcome(
            study=self.config.name,
            fingerprint=self.fingerprint,
            dataset=self.dataset.name,
            dataset_fingerprint=self.dataset.fingerprint,
            program=self.config.program,
            metric=self.config.metric,
            lm=describe_endpoint(self.spec),
            seed=self.config.seed,
            baseline=baseline,
            trials=tuple(trials),
            spent=self._spent(),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _spent(self) -> Spent:
        finished = [evaluation for _, evaluation in self.run.finished()]
        prices = [evaluation.usd for evaluation in finished]

        def total(name: str) -> int:
            return int(sum(evaluation.total(name) for evaluation in finished))

        return Spent(
            calls=self.budget.calls,
            paid_calls=total("paid_calls"),
            prompt_tokens=total("prompt_tokens"),
            completion_tokens=total("completion_tokens"),
            usd=None if None in prices else sum(price or 0.0 for price in prices),
            seconds=self.clock.seconds,
            calls_allowed=self.config.budget.lm_calls,
        )

    def _tell(self, entry: Entry, candidate: Candidate) -> None:
        if self.listener is not None:
            evaluation = self.run.read_evaluation(entry.unit)
            assert evaluation is not None, "scored just now"
            self.listener.entry(entry, evaluation, lambda: self.bench.messages(entry.config, candidate))

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.note(text)

    @staticmethod
    def _valid(entry: Entry) -> bool:
        return entry.summary.valid
