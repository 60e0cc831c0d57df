"""The progress bar: columns that show whole words and numbers at any width, and a console that it never leaves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task
from rich.text import Text

from secateur.formatting import duration

NARROW = 100
"""Columns below which the bar is short."""


def bar_width(console: Console) -> int:
    """Characters of the bar itself."""
    return 12 if console.width < NARROW else 24


@contextlib.contextmanager
def pinned(console: Console) -> Iterator[None]:
    """Keep a console on today's standard error: exporting a model redirects `sys.stderr`, and the bar would freeze meanwhile."""
    console.file = sys.stderr
    try:
        yield
    finally:
        console.file = None  # type: ignore[assignment] # rich: whatever sys.stderr is from now on


class Bar(BarColumn):
    """A bar and its count, once it is known how much there is to do."""

    def render(self, task: Task) -> Text | object:  # type: ignore[override] # a stage without a total has no bar
        """The bar, or nothing."""
        return super().render(task) if task.total else Text("")


class Elapsed(ProgressColumn):
    """`12/40 18 s`: how far, and since when."""

    def render(self, task: Task) -> Text:
        """See the class."""
        count = f"{int(task.completed)}/{int(task.total)} " if task.total else ""
        return Text(f"{count}{duration(task.elapsed or 0.0)}", style="cyan")


class Parts(ProgressColumn):
    """Further figures, as many as there is room for: a part is shown whole or not at all."""

    def __init__(self, console: Console) -> None:
        self.console = console
        super().__init__()

    def render(self, task: Task) -> Text:
        """See the class."""
        bar = bar_width(self.console) + 1 if task.total else 1
        used = 2 + len(task.description) + 1 + bar + len(Elapsed().render(task)) + 2
        return Text(whole(task.fields["parts"], self.console.width - used), style="dim")


def whole(parts: Sequence[str], width: int) -> str:
    """As many of the parts as fit, from the first on."""
    text = ""
    for part in parts:
        longer = f"{text}, {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return text
