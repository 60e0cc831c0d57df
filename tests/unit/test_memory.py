from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from secateur.memory import give_back

STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(
    not STATUS.exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_what_was_freed_between_what_is_in_use_goes_back_to_the_system():
    size, count = 50_000, 2000
    used = [bytes([1]) * size for _ in range(count)]
    del used[::2]
    before = resident()
    give_back()
    assert before - resident() > size * count // 4
    assert sum(map(len, used)) == size * count // 2
