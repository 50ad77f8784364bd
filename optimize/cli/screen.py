"""The command line's part about retrieval. Heavy imports stand inside the command."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optimize.cli.options import RUNS, Json, Runs, StudyArg, print_json

if TYPE_CHECKING:
    from optimize.screening.explain import Explanation
    from optimize.screening.screen import Screen, Screened

_SHOWN = 20


class Which(StrEnum):
    """Which configuration is explained."""

    PICK = "pick"
    BASELINE = "baseline"


def screen(
    study: StudyArg,
    configurations: Annotated[int | None, typer.Option(help="Instead of screen.configurations.", min=2)] = None,
    max_context_tokens: Annotated[
        int | None, typer.Option(help="What the pick may take; by default what the baseline takes.", min=1)
    ] = None,
    explain: Annotated[
        Which | None, typer.Option(help="Say for each question where this configuration loses the gold.")
    ] = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Score retrieval configurations on all validation questions, without any LM call."""
    from rich.console import Console

    from optimize.reporting.screen import as_json, render_terminal, write_screen
    from optimize.runs.progress import Progress, Silence, Terminal
    from optimize.screening.screen import Screen
    from optimize.settings.study import StudyConfig
    from optimize.studies.check import check_retrieval

    said = {"configurations": configurations, "max_context_tokens": max_context_tokens}

    def change(config: StudyConfig) -> StudyConfig:
        given = {name: value for name, value in said.items() if value is not None}
        return config.model_copy(update={"screen": config.screen.model_copy(update=given)})

    config, dataset = check_retrieval(study, change)
    console = Console()
    progress: Progress = Silence() if json_ else Terminal(console)
    with progress.live() if isinstance(progress, Terminal) else contextlib.nullcontext():
        work = Screen(config, dataset, runs, progress)
        screened = work.run()
        page = write_screen(screened, config.name, config.smallest_effect)
        explanation = None if explain is None else _explain(work, screened, explain)
    if json_:
        content = as_json(screened) if explanation is None else _explanation_json(explanation)
        print_json(content)
    elif explanation is not None:
        _print_explanation(explanation, explain, console)
    else:
        console.print(render_terminal(screened, config.smallest_effect))
        console.print(
            f"\n{len(screened.points)} configurations in {screened.seconds:.1f} s, no LM call", highlight=False
        )
        console.print(f"report  {page}", soft_wrap=True, highlight=False)


def _explain(work: Screen, screened: Screened, which: Which) -> Explanation:
    from optimize.screening.explain import explain

    config = screened.pick.config if which is Which.PICK else screened.baseline.config
    return explain(work.points.bench, work.examples, config, screened.unscored)


def _explanation_json(explanation: Explanation) -> dict[str, Any]:
    return {
        "config": explanation.config.as_params(),
        "facts": explanation.facts,
        "questions": explanation.questions,
        "unscored": explanation.unscored,
        "lost": dict(explanation.counts),
        "losses": [asdict(loss) for loss in explanation.losses],
    }


def _print_explanation(explanation: Explanation, which: Which | None, console: Any) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from optimize.screening.explain import STAGES

    lost, facts = len(explanation.losses), explanation.facts
    assert which is not None, "only what was asked for is explained"
    console.print(
        f"\nThe {which.value} hands over {facts - lost} of {facts} facts whole, over {explanation.questions} questions "
        f"with evidence" + (f"; {explanation.unscored} have none." if explanation.unscored else "."),
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("lost by", "facts", "share", "what happened"):
        table.add_column(title, justify="right" if title in ("facts", "share") else "left")
    for stage, count in explanation.counts.items():
        table.add_row(stage, str(count), f"{count / max(1, facts):.1%}", STAGES[stage])
    console.print(table)
    for loss in explanation.losses[:_SHOWN]:
        rank = f"rank {loss.rank}" if loss.rank else "not found"
        console.print(Text(f"{loss.stage:<9} {rank:<9} {loss.question}\n{'':<20}{loss.document}: {_short(loss.quote)}"))
    if lost > _SHOWN:
        console.print(f"... and {lost - _SHOWN} more; --json shows all of them.", highlight=False)


def _short(text: str, most: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "\u2026"
