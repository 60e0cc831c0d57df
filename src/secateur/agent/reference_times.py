"""Reference times that a device remembers between measurements: how long each reference takes when nothing disturbs the device.

Whoever reads or writes has the device to itself.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

KEPT = 64
"""References that are remembered; the oldest goes first."""
PAUSE = 300.0
"""Seconds that lie at least between two increases of a reference time."""
INCREASE = 1.01
"""Factor by which a reference time grows where the device was not quiet: one that is slower for good is believed in the end."""


class ReferenceTimes:
    """The file that holds them."""

    def __init__(self, folder: Path) -> None:
        """folder: of the agent, on the device."""
        self._file = folder / "reference_times.json"
        try:
            kept = json.loads(self._file.read_text())
            self._seconds: dict[str, float] = {str(k): float(v) for k, v in kept["seconds"].items()}
            self._increased = float(kept["increased"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or a damaged one
            self._seconds, self._increased = {}, 0.0

    def seconds(self, key: str) -> float:
        """What a reference takes on the quiet device; infinity for one that is not known."""
        return self._seconds.get(key, math.inf)

    def note(self, key: str, seconds: float, *, disturbed: bool) -> None:
        """Record what a measurement has found: the lowest time counts. disturbed: the device did not become quiet meanwhile."""
        known = self._seconds.pop(key, math.inf)
        # A clock that was set back counts as a pause.
        if disturbed and not 0 <= time.time() - self._increased < PAUSE:
            self._increased = time.time()
            known *= INCREASE
        self._seconds[key] = min(seconds, known)
        content: dict[str, Any] = {
            "seconds": dict(list(self._seconds.items())[-KEPT:]),
            "increased": self._increased,
        }
        unfinished = self._file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(content))
        unfinished.replace(self._file)
