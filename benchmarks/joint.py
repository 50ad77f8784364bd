"""Joint search against its parts, live with the local model at equal search budgets.

Run: uv run python benchmarks/joint.py DATASET [--seeds 0 1] [--calls 300] [--arms joint …] [--runs FOLDER]; on two
cores about half an hour a seed. Every arm is a study of its own over the same questions; what it pays for the
baseline's search evaluation and for compiling counts.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.outcome import Outcome
from optimize.inference.statistics import paired_difference, score_interval
from optimize.runs.progress import Silence
from optimize.studies.check import check_study
from optimize.studies.study import Phases, Study
from programs.environment import set_environment_defaults

HERE = Path(__file__).resolve().parent
TEST, CONFIRM, SEARCH = 105, 24, 30
BASELINE = {"splitter": "recursive", "chunk_size": 128, "retriever": "dense", "top_k": 2, "prompt_format": "compact"}
ARMS = {
    "joint": Phases(),
    "sweep only": Phases(compile=False),
    "compile only": Phases(search=False),
    "sweep, then compile": Phases(search=False),
}


@dataclass(frozen=True)
class Arm:
    """What one way of spending the calls came to.

    Attributes:
        outcome: Of its study.
        test: Its winner's test answers; the baseline's where it kept that.
        groups: Example id -> group.
    """

    outcome: Outcome
    test: Evaluation
    groups: dict[str, str]


class Arms:
    """Runs the arms of one seed."""

    def __init__(self, dataset: Path, runs: Path, seed: int, calls: int) -> None:
        self.dataset, self.runs, self.seed, self.calls = dataset, runs, seed, calls
        self.own = runs

    def run(self, name: str) -> Arm:
        # A folder for each arm, or it would start from what the others have found; answers and indexes are shared.
        self.own = self.runs / f"seed {self.seed}, {name}, {self.calls}"
        self.own.mkdir(parents=True, exist_ok=True)
        for shared in ("cache", "indexes", "screens"):
            (self.runs / shared).mkdir(exist_ok=True)
            if not (self.own / shared).exists():
                (self.own / shared).symlink_to((self.runs / shared).resolve())
        if name != "sweep, then compile":
            return self._tested(self._study(ARMS[name], self.calls))
        sweep = self._study(Phases(compile=False, verdict=False), self.calls // 2)
        best = sweep.execute().best_trial
        assert best is not None, "something was swept"
        return self._tested(self._study(ARMS[name], self.calls - self.calls // 2, baseline=best.config.as_params()))

    def _tested(self, study: Study) -> Arm:
        outcome = study.execute()
        if outcome.test_winner is not None:
            rows = study.run.read_evaluation(outcome.test_winner.unit)
        else:
            # The baseline was kept, so its own study did not open the test.
            rows = study.bench.ask("test-kept", "test", study.baseline_config, study.bare.id, study.allocation.test)
        assert rows is not None, "asked just now"
        return Arm(outcome, rows, study.allocation.groups)

    def _study(self, phases: Phases, calls: int, **changes: Any) -> Study:
        content = yaml.safe_load((HERE / "squad.yaml").read_text(encoding="utf-8")) | {"baseline": BASELINE} | changes
        content["dataset"], content["seed"] = str(self.dataset.resolve()), self.seed
        content["examples"] = {"search": SEARCH, "confirm": CONFIRM, "test": TEST}
        reserved = CONFIRM * (content["finalists"] + 1) + 2 * TEST if phases.verdict else 0
        content["budget"] = {"lm_calls": calls + reserved}
        file = self.own / "joint.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        checked = check_study(file)
        return Study(checked.study, checked.dataset, checked.spec, self.own, Silence(), phases=phases)


def main(dataset: Path, runs: Path, seeds: Sequence[int], calls: int, names: Sequence[str]) -> None:
    set_environment_defaults()
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    lines = []
    for seed in seeds:
        arms, joint = Arms(dataset, runs, seed, calls), {}
        for name in names:
            arm = arms.run(name)
            joint = joint or arm.test.scores
            lines.append(_line(seed, name, arm, joint))
            print(lines[-1], arm.outcome.choice, flush=True)
        base = arm.outcome.test_baseline
        if base is not None and names[-1] != "sweep, then compile":
            lines.append(
                f"| {seed} | baseline | {_interval(base.summary.score, base.summary.low, base.summary.high)} | | | |"
            )
    print(f"\n{calls} search calls, {TEST} test questions\n")
    print("| seed | arm | test token F1 | joint minus arm | verdict | search calls | prompt tokens a question |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))


def _line(seed: int, name: str, arm: Arm, joint: dict[str, float]) -> str:
    scores, outcome = arm.test.scores, arm.outcome
    low, high = score_interval(list(scores.values()), [arm.groups[i] for i in scores])
    both = [i for i in joint if i in scores]
    gap = paired_difference([joint[i] - scores[i] for i in both], [arm.groups[i] for i in both])
    said = "" if name == "joint" else _interval(gap.mean, gap.low, gap.high)
    searched = outcome.spent.calls - sum(entry.summary.calls for entry in outcome.finalists)
    searched -= sum(entry.summary.calls for entry in (outcome.test_baseline, outcome.test_winner) if entry)
    mean, tokens = sum(scores.values()) / len(scores), arm.test.total("prompt_tokens") / len(arm.test.rows)
    return (
        f"| {seed} | {name} | {_interval(mean, low, high)} | {said} | {outcome.verdict} | {searched} | {tokens:.0f} |"
    )


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    said = parser.parse_args()
    main(said.dataset, said.runs, said.seeds, said.calls, said.arms)
