"""The studies of a runs folder, finished or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optimize.evaluation.outcome import Outcome
from optimize.reporting.headline import MISSING, finite, headline, money, signed
from optimize.settings.study import load_study
from programs.errors import RagwrightError

UNFINISHED = "unfinished"
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Listed:
    """One study.

    Attributes:
        run: Name of its folder.
        date: When it was worked on last, in ISO 8601.
        dataset: Name of its data set.
        result: The verdict, how far it came, or that it is unfinished.
        difference: Winner minus baseline on test; None before.
        low: Lower end of its 95 % interval.
        high: Upper end.
        trials: So many were begun.
        lm_calls: LM calls so far; None where they were not counted up yet.
        usd: Money; None where a price is not known.
    """

    run: str
    date: str
    dataset: str
    result: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    trials: int = 0
    lm_calls: int | None = None
    usd: float | None = None


def list_studies(runs: Path) -> list[Listed]:
    """Every study of a runs folder, the one worked on last first."""
    found = [_read(file.parent) for file in runs.glob("*/study.yaml")]
    return sorted(found, key=lambda one: one.date, reverse=True)


def _read(folder: Path) -> Listed:
    outcome, begun = folder / "outcome.json", len(list((folder / "evaluations").glob("trial-*.jsonl")))
    last = max(file.stat().st_mtime for file in _signs_of_life(folder))
    date = datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
    try:
        dataset = Path(load_study(folder / "study.yaml").dataset).name
        if not outcome.is_file():
            return Listed(folder.name, date, dataset, UNFINISHED, trials=begun)
        o = Outcome.from_json(json.loads(outcome.read_text(encoding="utf-8")))
    except (RagwrightError, ValueError, KeyError, TypeError):
        # One damaged folder does not hide the others.
        return Listed(folder.name, date, MISSING, UNREADABLE, trials=begun)
    d = o.difference
    gap, low, high = (None, None, None) if d is None else (d.mean, d.low, d.high)
    word, spent = headline(o).word, o.spent
    return Listed(folder.name, date, o.dataset, word, gap, low, high, len(o.trials), spent.calls, spent.usd)


def _signs_of_life(folder: Path) -> Iterator[Path]:
    yield from (file for name in ("outcome.json", "clock.json", "study.yaml") if (file := folder / name).is_file())


def as_lines(studies: list[Listed]) -> Iterator[str]:
    """The list for people, two lines a study, so that a narrow terminal cuts nothing off; dates by this machine."""
    for one in studies:
        date = datetime.fromisoformat(one.date).astimezone().strftime("%Y-%m-%d %H:%M")
        yield f"{one.run}  {date}  {one.dataset}"
        found = [one.result]
        if one.difference is not None and one.low is not None and one.high is not None:
            found[0] += f" {signed(one.difference)} [{signed(one.low)}, {signed(one.high)}]"
        found.append(f"{one.trials} trials")
        if one.lm_calls is not None:
            found += [f"{one.lm_calls:,} LM calls", money(one.usd)]
        yield f"    {', '.join(found)}"


def as_json(studies: list[Listed]) -> list[dict[str, Any]]:
    """The list for machines; ends of an interval that are infinite are null."""
    return [finite(asdict(one)) for one in studies]
