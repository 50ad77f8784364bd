"""What search methods make of the same measured table (`table.csv`, see `measure.py`), call by call and token by token.

The questions are split at random into a half that methods may ask and a half that what they choose is scored on. Every
method pays for what it asks, and for compiling. The target is what the best cell of a full evaluation of the asked half
scores on the other half, on average over the splits: sixty questions do not carry a point of their own.

Run: uv run python benchmarks/search_efficiency/replay.py [--splits 50]; a few minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from optimize.data.example import Example
from optimize.evaluation.evaluate import Evaluation, Row
from optimize.inference.selection import pocock_look
from optimize.searching.belief import Floats
from optimize.searching.search import Search
from programs.config import PipelineConfig

HERE = Path(__file__).resolve().parent
SETTINGS = ("chunk_size", "top_k", "retriever", "reranker")
BARE = "bare"
BASELINE = {"chunk_size": 160, "top_k": 3, "retriever": "dense", "reranker": "none"}
STEPS = np.arange(15, 1471, 15)
"""Budgets in calls; in tokens they are as many calls at the table's mean."""

SHOWN = [int(place) for place in np.searchsorted(STEPS, [60, 90, 150, 210, 300, 450, 750, 1470])]
NEAR = 0.01
"""Regret that counts as being at the target."""

BOOTSTRAPS = 2000

Cell = tuple[int, int]
"""Positions of a configuration and of a candidate."""

Path_ = Iterator[tuple[int, float, Cell]]
"""Calls and tokens so far, and the cell that would be chosen now."""


@dataclass(frozen=True)
class Table:
    """The measured table; arrays are configurations x candidates x questions."""

    configs: list[dict[str, Any]]
    candidates: list[str]
    questions: list[str]
    groups: list[str]
    scores: Floats
    tokens: Floats
    recall: Floats
    context: Floats
    compile_calls: int
    compile_tokens: float

    @classmethod
    def read(cls) -> Table:
        with (HERE / "table.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))

        def values(name: str) -> list[Any]:
            return list(dict.fromkeys(line[name] for line in lines))

        configs = [dict(zip(SETTINGS, one, strict=True)) for one in product(*(values(name) for name in SETTINGS))]
        candidates, questions = values("candidate"), values("question")
        shape = (len(configs), len(candidates), len(questions))
        found = {
            name: np.full(shape, np.nan) for name in ("token_f1", "prompt_tokens", "span_recall", "context_tokens")
        }
        groups = {}
        for line in lines:
            place = (
                configs.index({name: line[name] for name in SETTINGS}),
                candidates.index(line["candidate"]),
                questions.index(line["question"]),
            )
            groups[line["question"]] = line["group"]
            for name, array in found.items():
                array[place] = float(line[name])
        assert not np.isnan(found["token_f1"]).any(), "every cell was measured"
        about = json.loads((HERE / "table.json").read_text(encoding="utf-8"))
        return cls(
            [{name: int(v) if v.isdigit() else v for name, v in config.items()} for config in configs],
            candidates,
            questions,
            [groups[question] for question in questions],
            found["token_f1"],
            found["prompt_tokens"],
            found["span_recall"][:, 0],
            found["context_tokens"][:, 0],
            sum(about["compile_calls"].values()),
            float(found["prompt_tokens"].mean()) * sum(about["compile_calls"].values()),
        )

    @cached_property
    def cells(self) -> list[Cell]:
        return list(product(range(len(self.configs)), range(len(self.candidates))))

    def value(self, cell: Cell, questions: Sequence[int]) -> float:
        return float(self.scores[cell][list(questions)].mean())


@dataclass
class Purse:
    """What a method has spent."""

    table: Table
    asked: Sequence[int]
    calls: int = 0
    tokens: float = 0.0

    def compile(self) -> None:
        self.calls += self.table.compile_calls
        self.tokens += self.table.compile_tokens

    def ask(self, cell: Cell, start: int = 0, end: int | None = None) -> Floats:
        """The scores of a cell on the asked questions from `start` to `end`."""
        questions = list(self.asked)[start:end]
        self.pay(cell, questions)
        found: Floats = self.table.scores[cell][questions]
        return found

    def pay(self, cell: Cell, questions: Sequence[int]) -> None:
        """For some questions to a cell."""
        self.calls += len(questions)
        self.tokens += float(self.table.tokens[cell][list(questions)].sum())


Method = Callable[[Table, Sequence[int], int], Path_]


def in_order(order: Callable[[Table, int], list[Cell]]) -> Method:
    """Full evaluations in an order that does not look at scores."""

    def method(table: Table, asked: Sequence[int], seed: int) -> Path_:
        purse, best = Purse(table, asked), (-1.0, (0, 0))
        purse.compile()
        for cell in order(table, seed):
            best = _better(best, (float(purse.ask(cell).mean()), cell))
            yield purse.calls, purse.tokens, best[1]

    return method


def _shuffled(table: Table, seed: int) -> list[Cell]:
    order = np.random.default_rng(seed).permutation(len(table.cells))
    return [table.cells[place] for place in order]


def _grid(table: Table, seed: int) -> list[Cell]:
    """Nested loops, over settings and values in the random order in which a person may have written them."""
    generator = np.random.default_rng(seed)
    columns = [[config[name] for name in SETTINGS] for config in table.configs]
    ranks = {}
    for place in generator.permutation(len(SETTINGS) + 1):
        ranks[int(place)] = generator.permutation(99)

    def rank(cell: Cell) -> list[int]:
        values = [*columns[cell[0]], cell[1]]
        kinds = [sorted({str(row[n]) for row in columns}) for n in range(len(SETTINGS))]
        places = [*(kinds[n].index(str(values[n])) for n in range(len(SETTINGS))), cell[1]]
        return [int(order[places[place]]) for place, order in ranks.items()]

    return sorted(table.cells, key=rank)


def tpe(pruned: str = "") -> Method:
    """Optuna's TPE, each trial asked everything, or stopped early by `WilcoxonPruner` or by Pocock looks."""

    def method(table: Table, asked: Sequence[int], seed: int) -> Path_:
        purse, best = Purse(table, asked), (-1.0, (0, 0))
        purse.compile()
        pruner = optuna.pruners.WilcoxonPruner() if pruned == "wilcoxon" else optuna.pruners.NopPruner()
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True), pruner=pruner
        )
        seen: dict[Cell, float] = {}
        leading: Floats | None = None
        for _ in range(12 * len(table.cells)):
            if len(seen) == len(table.cells):
                break
            trial = study.ask()
            config = {
                name: trial.suggest_categorical(name, list(dict.fromkeys(c[name] for c in table.configs)))
                for name in SETTINGS
            }
            cell = (
                table.configs.index(config),
                table.candidates.index(trial.suggest_categorical("candidate", table.candidates)),
            )
            if cell not in seen:
                scores, whole = _rungs(purse, cell, trial, pruned, leading)
                seen[cell] = float(scores.mean())
                if whole and seen[cell] > best[0]:
                    best, leading = (seen[cell], cell), scores
                yield purse.calls, purse.tokens, best[1]
            study.tell(trial, seen[cell])

    return method


def _rungs(purse: Purse, cell: Cell, trial: optuna.Trial, pruned: str, leading: Floats | None) -> tuple[Floats, bool]:
    """A cell's scores, and whether it was asked everything."""
    size = len(purse.asked)
    if not pruned:
        return purse.ask(cell), True
    found = np.zeros(0)
    for look in range(4):
        start, end = round(size * look / 4), round(size * (look + 1) / 4)
        found = np.concatenate([found, purse.ask(cell, start, end)])
        if end == size:
            break
        if pruned == "wilcoxon":
            for step in range(start, end):
                trial.report(float(found[step]), step)
            if trial.should_prune():
                return found, False
        elif leading is not None and pocock_look(found - leading[:end]):
            return found, False
    return found, True


def sequential(first: str) -> Method:
    """A sweep with bare prompts and then candidates on the best pipeline, or the other way round; each asked fully."""

    def method(table: Table, asked: Sequence[int], seed: int) -> Path_:
        purse = Purse(table, asked)
        bare, usual = table.candidates.index(BARE), table.configs.index(BASELINE)
        order = list(np.random.default_rng(seed).permutation(len(table.configs)))
        best: tuple[float, Cell] = (-1.0, (usual, bare))
        stages: list[Callable[[Cell], list[Cell]]] = [
            lambda cell: [(int(config), cell[1]) for config in order],
            lambda cell: [(cell[0], candidate) for candidate in range(len(table.candidates))],
        ]
        for stage, cells in enumerate(stages if first == "sweep" else stages[::-1]):
            if (first == "sweep") == (stage == 1):
                purse.compile()
            for cell in cells(best[1]):
                if stage and cell == best[1]:
                    continue
                best = _better(best, (float(purse.ask(cell).mean()), cell))
                yield purse.calls, purse.tokens, best[1]

    return method


class TableBench:
    """Answers the search's questions from the table."""

    def __init__(self, table: Table, asked: Sequence[int], purse: Purse, most: int) -> None:
        self.table, self.asked, self.purse, self.most = table, list(asked), purse, most
        self.examples = [Example(table.questions[place], table.questions[place], ("x",)) for place in self.asked]
        self._done: dict[str, int] = {}

    def cell(self, config: PipelineConfig, candidate: str) -> Cell:
        wanted = {name: getattr(config, name) for name in SETTINGS}
        return self.table.configs.index(wanted), self.table.candidates.index(candidate)

    def ask(
        self, unit: str, phase: Any, config: PipelineConfig, candidate: str, examples: Sequence[Example]
    ) -> Evaluation:
        cell = self.cell(config, candidate)
        places = [self.table.questions.index(example.id) for example in examples]
        self.purse.pay(cell, places[self._done.get(unit, 0) :])
        self._done[unit] = len(examples)
        scores, tokens = self.table.scores[cell], self.table.tokens[cell]
        return Evaluation(
            tuple(
                Row(self.table.questions[at], float(scores[at]), "x", prompt_tokens=int(tokens[at]), calls=1)
                for at in places
            )
        )

    def affords(self, unit: str, count: int) -> bool:
        return self.purse.calls < self.most

    def foresee(self, config: PipelineConfig, examples: Sequence[Example]) -> Floats:
        place = self.cell(config, BARE)[0]
        recall = self.table.recall[place][self.asked]
        length = np.full(len(self.asked), np.log2(self.table.context[place].mean() / 256) / 4)
        return np.stack([recall, length], axis=1)

    def tokens(self, config: PipelineConfig, candidate: str) -> float:
        demos = 0 if candidate == BARE else 3
        return float((self.table.context[self.cell(config, BARE)[0]].mean() + 40) * (1 + demos))


def ours(table: Table, asked: Sequence[int], seed: int) -> Path_:
    """The search of this package, its table of points laid whole."""
    purse = Purse(table, asked)
    bench = TableBench(table, asked, purse, most=int(STEPS[-1]))
    search = Search(bench, None, bench.examples, table.candidates)
    purse.compile()
    search.begin(PipelineConfig.from_params(BASELINE).canonical(), BARE)
    search.lay(table.configs)
    yield purse.calls, purse.tokens, bench.cell(search.leader().config, search.leader().candidate)
    while purse.calls < 600 and search.step():
        yield purse.calls, purse.tokens, bench.cell(search.leader().config, search.leader().candidate)


METHODS: dict[str, Method] = {
    "random": in_order(_shuffled),
    "grid": in_order(_grid),
    "TPE, full": tpe(),
    "TPE, WilcoxonPruner": tpe("wilcoxon"),
    "TPE, Pocock looks": tpe("pocock"),
    "sweep, then compile": sequential("sweep"),
    "compile, then sweep": sequential("compile"),
    "ragwright": ours,
}


def main(splits: int) -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = Table.read()
    budgets = {"calls": STEPS.astype(float), "tokens": STEPS * float(table.tokens.mean())}
    regrets: dict[str, dict[str, list[Floats]]] = {name: {axis: [] for axis in budgets} for name in METHODS}
    targets, bests = [], []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(table.questions))
        asked, held = order[: len(order) // 2].tolist(), order[len(order) // 2 :].tolist()
        targets.append(table.value(max(table.cells, key=lambda cell: table.value(cell, asked)), held))
        bests.append(max(table.value(cell, held) for cell in table.cells))
        for name, method in METHODS.items():
            path = list(method(table, asked, split))
            for axis, place in (("calls", 0), ("tokens", 1)):
                regrets[name][axis].append(targets[-1] - _curve(table, path, held, budgets[axis], place))
    print(
        f"{len(table.cells)} cells x {len(table.questions)} questions, {splits} splits. Target {np.mean(targets):.3f};"
    )
    print(f"the best cell of the held-out half itself would have {np.mean(bests):.3f}.\n")
    for axis, budget in budgets.items():
        print(f"Regret in token F1 after so many {axis}, with 95 % intervals over the splits\n")
        print(f"| method | {' | '.join(f'{budget[n]:,.0f}' for n in SHOWN)} | at the target from |")
        print("|---" * (len(SHOWN) + 2) + "|")
        for name in METHODS:
            found = np.array(regrets[name][axis])
            print(f"| {name} | {' | '.join(_shown(found[:, n]) for n in SHOWN)} | {_reached(found, budget)} |")
        print()


def _better(best: tuple[float, Cell], other: tuple[float, Cell]) -> tuple[float, Cell]:
    """The higher of two; of equal ones the one that stands first in the table, as in the target."""
    return max(best, other, key=lambda one: (one[0], (-one[1][0], -one[1][1])))


def _curve(table: Table, path: list[tuple[int, float, Cell]], held: list[int], budget: Floats, place: int) -> Floats:
    """Held-out score of what is chosen at each budget; before the first choice, that of the baseline."""
    usual = (table.configs.index(BASELINE), table.candidates.index(BARE))
    found = []
    for amount in budget:
        within = [cell for *spent, cell in path if spent[place] <= amount]
        found.append(table.value(within[-1] if within else usual, held))
    return np.array(found)


def _shown(values: Floats) -> str:
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (BOOTSTRAPS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _reached(regrets: Floats, budget: Floats) -> str:
    """The first budget from which on the mean regret stays at `NEAR` or below."""
    above = np.flatnonzero(regrets.mean(axis=0) > NEAR)
    first = 0 if not len(above) else int(above[-1]) + 1
    return f"{budget[first]:,.0f}" if first < len(budget) else "never"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=50)
    main(parser.parse_args().splits)
