"""A finished study with as many trials as are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optimize.evaluation.evaluate import Evaluation
from optimize.evaluation.outcome import Entry, Outcome, summarize
from tests.outcomes import BASELINE, Studied


def with_trials(studied: Studied, count: int) -> Outcome:
    """The study's outcome with trials of random settings; their rows are in its folder."""
    generator = np.random.default_rng(0)
    trials, whole = [], studied.outcome.trials[0]
    for number in range(count):
        config = replace(
            BASELINE,
            chunk_size=int(generator.choice([64, 96, 128, 192, 256, 384, 512])),
            chunk_overlap=float(generator.choice([0.0, 0.1, 0.2])),
            retriever=str(generator.choice(["dense", "sparse", "hybrid"])),
        ).canonical()
        unit, asked = f"trial-{number:04d}", int(generator.choice([4, 8, 12]))
        rows = Evaluation(studied.evaluations[whole.unit].rows[:asked])
        studied.run.evaluation(unit, asked, lambda start, rows=rows: Evaluation(rows.rows[start:]))
        summary = replace(summarize(rows, {r.example_id: r.example_id for r in rows.rows}))
        summary = replace(summary, prompt_tokens=asked * int(generator.integers(50, 2000)))
        estimate = float(generator.normal(0.3, 0.1))
        trials.append(Entry(unit, "search", config, f"bare-{number % 5}", summary, "", estimate, 0.05))
    return replace(studied.outcome, trials=tuple(trials))
