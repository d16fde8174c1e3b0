"""What one sees while a night runs: a progress bar with its rate for every long stage, a line for every finished one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class RateColumn(TextColumn):
    """How many a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: object) -> Text:
        """The rate, once there is one."""
        speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, more: int, note: str = "", total: int | None = None) -> None:
        """By `more` steps, of `total` where that is known only now."""
        ...


class Screen:
    """Where a night shows itself: the terminal, or plain lines where there is none."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(line)

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Advance]:
        """A progress bar of `total` steps (None: not known yet); the result moves it on."""
        columns = (
            TextColumn("  {task.description:<26}"),
            BarColumn(12),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", style="cyan"),
        )
        with Progress(*columns, console=self.console, transient=self.console.is_terminal) as progress:
            task = progress.add_task(what, total=total, note="")
            yield lambda more, note="", total=None: progress.update(task, advance=more, note=note, total=total)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A spinner while something starts."""
        with self.console.status(f"{what} …"):
            yield
