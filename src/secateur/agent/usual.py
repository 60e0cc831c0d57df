"""What a device remembers of its references between measurements: how fast they are when nothing disturbs it.

Whoever reads or writes has the device to itself.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

KEPT = 64
"""References that are remembered; the oldest goes first."""
PAUSE = 60.0
"""Seconds for which a device that was waited for in vain is not waited for again."""
FORGIVEN = 1.01
"""What is known grows by so much whenever it was waited for in vain: a device that is slower for good is believed in the end."""


class Usual:
    """The file in which it is written down."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "usual.json"
        try:
            found = json.loads(self._file.read_text())
            self._seconds: dict[str, float] = {str(k): float(v) for k, v in found["seconds"].items()}
            self._given_up = float(found["given_up"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or a damaged one
            self._seconds, self._given_up = {}, 0.0

    def seconds(self, key: str) -> float:
        """What a reference takes at its best; infinity for one that is not known."""
        return self._seconds.get(key, float("inf"))

    @property
    def worth_waiting(self) -> bool:
        """Whether the last time of waiting in vain is long enough ago. A clock that was set back counts as long ago."""
        return not 0 <= time.time() - self._given_up < PAUSE

    def note(self, key: str, seconds: float, *, in_vain: bool) -> None:
        """Write down what a measurement has found. in_vain: the device did not become quiet."""
        known = self._seconds.pop(key, float("inf"))
        if in_vain and self.worth_waiting:
            self._given_up = time.time()
            known *= FORGIVEN
        self._seconds[key] = min(seconds, known)
        content: dict[str, Any] = {
            "seconds": dict(list(self._seconds.items())[-KEPT:]),
            "given_up": self._given_up,
        }
        begun = self._file.with_suffix(f".{os.getpid()}")
        begun.write_text(json.dumps(content))
        begun.replace(self._file)
