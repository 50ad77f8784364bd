"""What a study says while it works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from optimize.evaluation.outcome import Entry


class Progress(Protocol):
    """Hears what happens. Nothing that it does changes what is found."""

    def phase(self, name: str, detail: str) -> None:
        """A phase begins."""

    def working(self, what: str, done: int, total: int, spent: str = "") -> None:
        """`done` of `total` steps of `what` are finished; `spent` says what they cost so far, if anything."""

    def entry(self, entry: Entry, best: bool) -> None:
        """A configuration has been scored."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


class Silence:
    """Says nothing."""

    def phase(self, name: str, detail: str) -> None:
        """Say nothing."""

    def working(self, what: str, done: int, total: int, spent: str = "") -> None:
        """Say nothing."""

    def entry(self, entry: Entry, best: bool) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class Terminal:
    """Prints phases and entries as lines, with a live bar below for what is going on."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = console
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[spent]}", style="dim"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, spent="", visible=False)
        self._begun = time.monotonic()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bar as long as the block runs."""
        with self._bar:
            yield

    def phase(self, name: str, detail: str) -> None:
        """A heading with the time so far."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        self.console.print(f"[bold]{name}[/bold]  {detail}  [dim]{minutes}:{seconds:02}[/dim]", highlight=False)

    def working(self, what: str, done: int, total: int, spent: str = "") -> None:
        """Move the bar."""
        if self._bar.tasks[0].description != what:
            self._bar.reset(self._task, description=what, total=total, visible=True)
        self._bar.update(self._task, completed=done, spent=spent, visible=done < total)

    def entry(self, entry: Entry, best: bool) -> None:
        """One line a configuration: of the search what is believed of it, of the other phases how it scored."""
        s, c = entry.summary, entry.config
        value, error = (s.score, s.stderr) if entry.estimate is None else (entry.estimate, entry.spread or 0.0)
        size = f"{c.chunk_size}x{c.top_k}"
        tokens = s.prompt_tokens / max(1, s.n)
        mark = "[green]best[/green]" if best else "    "
        failed = f"  [red]{s.failures} failed[/red]" if s.failures else ""
        what = entry.unit if entry.phase in ("baseline", "search") else entry.phase
        asked = f"{s.n:>4} asked {tokens:5.0f} tokens"
        self.console.print(
            f"  {what:<10} {value:.3f} ± {error:.3f} {mark} {asked}  {c.splitter:<9} {size:>6} "
            f"{c.retriever:<6} {c.reranker:<7} {c.prompt_format:<7} {entry.candidate}{failed}",
            highlight=False,
            overflow="ellipsis",
            no_wrap=True,
        )

    def note(self, text: str) -> None:
        """A line that stands out."""
        self.console.print(f"  [yellow]{text}[/yellow]", highlight=False)
