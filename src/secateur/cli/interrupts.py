"""Ctrl-C that is neither lost nor doubled.

Python raises it wherever the program happens to be, and where that is a library's clean-up (a weak reference's callback, a
destructor) the exception is printed or swallowed and the program goes on. And the process that watches over this one passes on
what it receives, although who signals a whole group of processes has reached this one as well.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Self

PASSED_ON = signal.SIGRTMIN + 7
"""Stands for a Ctrl-C that the watching process has received."""
TOGETHER = 1.0
"""Seconds in which a second SIGTERM is the first one again, which the watching process has passed on."""


class Interruptions:
    """A Ctrl-C that comes directly and is passed on besides is one."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {signal.SIGINT: 0, PASSED_ON: 0}
        self._raised = 0

    def install(self) -> None:
        """In place of Python's own handler; a process that ignores Ctrl-C goes on to ignore it."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            for number in self._counts:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._counts[number] += 1
        if max(self._counts.values()) > self._raised:
            self._raised += 1
            raise KeyboardInterrupt


class Interrupts:
    """Remembers that there was a Ctrl-C. A context manager for the main thread."""

    def __init__(self) -> None:
        self._seen = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, PASSED_ON)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._seen = True
        before = self._before[number]
        if not callable(before):
            raise KeyboardInterrupt
        before(number, frame)

    def check(self) -> None:
        """Raise KeyboardInterrupt where there was one."""
        if self._seen:
            raise KeyboardInterrupt


@dataclass
class Stop:
    """Why the program has been told to stop by something else than Ctrl-C; None where it has not."""

    reason: str | None = None


@contextlib.contextmanager
def stopping(seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Iterator[Stop]:
    """Inside, SIGTERM is a Ctrl-C that says so, and so is the end of these seconds. For the main thread."""
    stop, last = Stop(), -math.inf

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        again, last = clock() - last < TOGETHER, clock()
        if again:
            return
        stop.reason = stop.reason or ("SIGTERM" if number == signal.SIGTERM else "the deadline has passed")
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # a shell's background job ignores Ctrl-C, and this is none
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGALRM)}
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
