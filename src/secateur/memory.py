"""Memory that has been freed: glibc keeps it, in pieces that do not fit what comes next."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give it to the system, where that is glibc's way: in milliseconds, after what takes a multiple of a network's size."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
