"""Ctrl-C that is not lost.

Python raises it wherever the program happens to be, and where that is a library's clean-up (a weak reference's callback, a
destructor) the exception is printed or swallowed and the program goes on.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self


class Interrupts:
    """Remembers that there was a Ctrl-C. A context manager for the main thread."""

    def __init__(self) -> None:
        self._seen = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._seen = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt where there was one."""
        if self._seen:
            raise KeyboardInterrupt
