"""Callbacks of a user's, and lines of progress where nobody else shows any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from secateur.pipelines.listener import Listener, Progress, reporting, together
from secateur.workloads.calls import guarded

Callback = Listener | Callable[[Progress], object]
Callbacks = Callback | Sequence[Callback]
LINES = 10
"""Lines of progress in a stage, at most."""


def listener_of(callbacks: Callbacks, *, progress: bool) -> Listener:
    """All callbacks as one listener. progress: print lines as well. What a function raises is a WorkloadError with its place."""
    given: Sequence[Callback] = callbacks if isinstance(callbacks, Sequence) else (callbacks,)
    shown = [reporting(_Lines())] if progress else []
    return together(*shown, *(c if isinstance(c, Listener) else reporting(guarded(c, "The callback")) for c in given))


class _Lines:
    """Prints a tenth of what is reported: in a notebook to its output, elsewhere to standard error."""

    def __init__(self) -> None:
        self._stage, self._shown = "", 0

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage, self._shown = progress.stage, 0
        if progress.done is not None and progress.total:
            tenth = progress.done * LINES // progress.total
            if tenth <= self._shown:
                return
            self._shown = tenth
        count = "" if progress.done is None else f" {progress.done} of {progress.total}:"
        stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr  # a notebook colours errors red
        stream.write(f"{progress.stage}:{count} {progress.text}\n")
        stream.flush()
