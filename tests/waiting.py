"""Waiting for what another process does. Tests wait for the event itself; the limit only ends a test that will never succeed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LIMIT = 900.0
"""Seconds. Nothing here takes a fiftieth of it on an idle machine, and a loaded one is no failure."""


def until(condition: Callable[[], Any], what: str = "the condition", alive: Any = None) -> Any:
    """What the condition gives, once that is true. alive: a process (Popen) whose end before that is a failure."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert alive is None or alive.poll() is None, (what, alive.communicate())
        assert time.monotonic() < end, f"not within {LIMIT:.0f} s: {what}"
        time.sleep(0.05)
    return found
