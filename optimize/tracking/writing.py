"""What is written into a study's runs: evaluations with rows, prompts and traces, turns of optimizers, the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.ledger import Ledger
from optimize.evaluation.outcome import Entry, Outcome
from optimize.reporting.headline import headline
from optimize.reporting.insight_funnel import lost_by
from optimize.tracking.facts import Facts, Messages, same_point
from optimize.tracking.records import (
    COMPLETE,
    FAILED,
    WINNER,
    compile_metrics,
    compile_params,
    entry_metrics,
    entry_outcome,
    entry_params,
    outcome_metrics,
    rung_metrics,
)
from optimize.tracking.rows import TABLE_TAG, messages_json, prompts_text, rows_table
from optimize.tracking.store import NOTE, OUTCOME, Held, StudyRuns, Values
from optimize.tracking.tracing import TraceMaker, log_traces, traced
from optimize.tracking.words import describe_entry, describe_outcome, describe_turn
from programs.config import fingerprint
from programs.errors import RagwrightError
from programs.extraction import clean

LOGGED, TRACED = "ragwright.logged", "ragwright.traced"
"""Tags: a fingerprint of what a run was logged with, and of how many rows there are traces."""

FORMAT = 2
"""Of what is logged; an older run is completed by the next process that knows of it."""

_LONGEST_NOTE = 5000
"""Characters of a tag that every MLflow server takes."""


class StudyWriter:
    """Writes a study into its runs.

    Args:
        store: Its runs.
        facts: What is known of it.
    """

    def __init__(self, store: StudyRuns, facts: Facts) -> None:
        self.store, self._facts = store, facts
        store.write(store.parent, params=facts.params, tags={OUTCOME: "running"})
        store.write_text(store.parent, facts.study_yaml, "study.yaml")
        store.write_input(store.parent, facts.data, "study")

    def entry(self, entry: Entry, evaluation: Evaluation, messages: Messages) -> None:
        """Log an evaluation, as far as the store does not hold it."""
        facts = self._facts
        facts.messages[entry.unit] = messages
        if entry.phase == "baseline":
            facts.baseline = entry
        held = self.store.held.get(entry.unit)
        if held is not None and held.questions > entry.summary.n:
            return
        metrics = self._metrics(entry, evaluation)
        words = _note(describe_entry(entry, facts.params["metric"], evaluation, facts.baseline))
        logged = fingerprint([FORMAT, metrics, words])
        if held is not None and held.finished and held.tags.get(LOGGED) == logged:
            return
        more = held is None or held.questions < entry.summary.n or LOGGED not in held.tags
        held = self.store.take(entry.unit, entry.phase)
        rendered = self._rendered(entry.unit) if more else []
        if more:
            self._texts(held, entry, evaluation, rendered)
        tags = {OUTCOME: entry_outcome(entry), NOTE: words, **TABLE_TAG}
        self.store.write(held, entry_params(entry), metrics, tags)
        traces = self._trace(held, entry, evaluation, rendered, self._is_whole(entry)) if more else {}
        # Last, so that a run that was left half-way is written again.
        self.store.write(held, tags={LOGGED: logged, **traces})
        if not held.finished or more:
            self.store.end(held, entry.summary.n)
        self.turns()

    def turns(self) -> None:
        """Log the turns of optimizers that have ended, as the study's folder tells them."""
        facts = self._facts
        for file in sorted(facts.run.candidates.glob("*.list.json")):
            turn = file.name.removesuffix(".list.json")
            unit = f"compile-{turn}"
            if unit in self.store.held and self.store.held[unit].finished:
                continue
            content = json.loads(file.read_text(encoding="utf-8"))
            made = [facts.run.read_candidate(one) for one in content["ids"]]
            spent, problem = Ledger.from_json(content["spent"]), content["problem"]
            held = self.store.take(unit, "compile")
            self.store.write_text(held, clean(prompts_text(made, facts.examples)), "prompts.md")
            self.store.write_input(held, facts.data, "train")
            params = compile_params(turn.partition("-")[2], made, content.get("config"))
            metrics = [(name, value, 0) for name, value in compile_metrics(len(made), spent).items()]
            words = _note(describe_turn(turn, made, spent, problem))
            self.store.write(held, params, metrics, {OUTCOME: FAILED if problem else COMPLETE, NOTE: words})
            self.store.end(held)

    def outcome(self, outcome: Outcome, files: Sequence[Path], export: Path | None, times: Mapping[str, float]) -> None:
        """Log the result, mark the winner's runs, and end the parent run.

        Args:
            outcome: What was found.
            files: Logged as artifacts.
            export: Logged as the artifact folder `export`.
            times: What logging took, in seconds.
        """
        store, parent = self.store, self.store.parent
        self.turns()
        self._crown(outcome)
        for file in files:
            store.client.log_artifact(parent.run_id, str(file))
        if export is not None:
            store.client.log_artifacts(parent.run_id, str(export), "export")
        winner = f"{outcome.winner.config.fingerprint()}/{outcome.winner.candidate}" if outcome.winner else "none"
        tags = {
            NOTE: _note(describe_outcome(outcome, times)),
            OUTCOME: COMPLETE,
            "ragwright.result": headline(outcome).word,
            "ragwright.verdict": outcome.verdict or "none",
            "ragwright.winner": winner,
        }
        metrics = {**outcome_metrics(outcome), **{f"logging.{name}_seconds": value for name, value in times.items()}}
        store.write(parent, metrics=[(name, value, 0) for name, value in metrics.items()], tags=tags)
        store.end(parent)

    def interrupted(self) -> None:
        """Say that the study stopped half-way."""
        self.store.write(self.store.parent, tags={OUTCOME: "interrupted"})
        self.store.end(self.store.parent, status="KILLED")

    def register(self, outcome: Outcome, export: Path) -> None:
        """Enter the winner into MLflow's registries of prompts and models."""
        from optimize.exporting.registry import register

        try:
            register(self.store.client, self._facts.uri, self.store.parent.run_id, export, outcome)
        except RagwrightError as error:
            self._facts.warn(f"the winner is in no registry: {error}")

    def _metrics(self, entry: Entry, evaluation: Evaluation) -> Values:
        facts, metric = self._facts, self._facts.params["metric"]
        values = entry_metrics(entry, metric, evaluation, facts.groups)
        final = [(name, value, entry.summary.n) for name, value in values.items()]
        return [*rung_metrics(entry, metric, evaluation, facts.groups, facts.search_questions), *final]

    def _texts(self, held: Held, entry: Entry, evaluation: Evaluation, rendered: list[dict[str, Any]]) -> None:
        """The artifacts: rows with what became of them, and the prompt.

        Which stage of retrieval lost the gold is said where all rows are traced, too: it takes the whole ranking.
        """
        facts = self._facts
        stages: Mapping[str, Any] = {}
        if self._is_whole(entry):
            asked = [facts.examples[row.example_id] for row in evaluation.rows]
            runs, corpus = facts.run.path.parent, facts.dataset.corpus
            stages, _ = lost_by(runs, corpus, entry.config, facts.params["program"], asked)
        table = rows_table(evaluation, facts.examples, facts.dataset.corpus, stages)
        self.store.write_text(held, table, "rows.json")
        self.store.write_text(held, messages_json(rendered), "messages.json")
        if not held.questions:
            self.store.write_input(held, facts.data, entry.phase)

    def _rendered(self, unit: str) -> list[dict[str, Any]]:
        """The prompt, or nothing where a program of a person's own does not get that far."""
        try:
            return self._facts.messages[unit]()
        except Exception as error:  # noqa: BLE001  # a person's program may raise anything
            said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            self._facts.warn(f"{unit} is logged without its prompt, which could not be rendered: {said}")
            return []

    def _is_whole(self, entry: Entry) -> bool:
        """Whether all rows are traced as soon as they are told; the winner's others follow at the end."""
        return entry.phase == "test" or self._facts.is_baseline(entry)

    def _trace(
        self, held: Held, entry: Entry, evaluation: Evaluation, rendered: list[dict[str, Any]], whole: bool
    ) -> dict[str, str]:
        """Log the traces that are not there; the tag that says which are."""
        facts, rows = self._facts, evaluation.rows
        before, _, how = held.tags.get(TRACED, "0 some").partition(" ")
        there = {row.example_id for row in traced(rows[: int(before)], how == "all")}
        missing = [row for row in traced(rows, whole or how == "all") if row.example_id not in there]
        if not facts.traces:
            return {}
        maker = TraceMaker(
            self.store.experiment,
            held.run_id,
            held.started,
            facts.key,
            entry,
            facts.params["metric"],
            facts.params["lm"],
            facts.examples,
            facts.dataset.corpus,
            rendered,
            partial(facts.retracing.retrieved, entry.config),
            {"ragwright.study": facts.key},
        )
        try:
            log_traces(facts.uri, maker, missing)
        except NotImplementedError:
            facts.traces = False
            facts.warn("this MLflow server takes no traces; everything else is logged.")
            return {}
        return {TRACED: f"{len(rows)} {'all' if whole or how == 'all' else 'some'}"}

    def _crown(self, outcome: Outcome) -> None:
        """Tag the winner's runs in all phases, trace all of their rows, and take the tag from an earlier winner."""
        told = [*outcome.trials, *outcome.finalists, outcome.test_winner]
        entries = {entry.unit: entry for entry in told if entry is not None}
        for unit, held in self.store.children.items():
            entry = entries.get(unit)
            wins = entry is not None and outcome.winner is not None and same_point(entry, outcome.winner)
            if wins and entry is not None:
                traces: dict[str, str] = {}
                rows = self._facts.run.read_evaluation(unit)
                if rows is not None and unit in self._facts.messages:
                    asked = Evaluation(rows.rows[: entry.summary.n])
                    traces = self._trace(held, entry, asked, self._rendered(unit), True)
                self.store.write(held, tags={OUTCOME: WINNER, **traces})
            elif held.tags.get(OUTCOME) == WINNER:
                self.store.write(held, tags={OUTCOME: entry_outcome(entry) if entry is not None else COMPLETE})


def _note(text: str) -> str:
    return clean(text)[:_LONGEST_NOTE]
