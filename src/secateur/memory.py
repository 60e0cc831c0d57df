"""Memory: what is left of it, and what has been freed, which glibc keeps in pieces that do not fit what comes next."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path


def give_back() -> None:
    """Give it to the system, where that is glibc's way: in milliseconds, after what takes a multiple of a network's size."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def left(root: Path = Path("/")) -> int | None:
    """Bytes that processes of this one's kind can still take; None where the system does not say (not Linux).

    That is what the machine has available, and no more than any control group (container, service) leaves of its limit; what a
    group holds of files that nobody has looked at lately is not used. root: of the file system.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return max(0, min([machine, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each of this process's control groups that has a limit leaves of it. Version 1 and 2 have other names for the same."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                mount, limit, used, idle = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
            elif "memory" in controllers.split(","):
                mount, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
                idle = "total_inactive_file"
            else:
                continue
            own = Path(path.lstrip("/"))  # inside a container it may be named as the host sees it, and not be there
            for group in (own, *own.parents):
                folder = root / mount / group
                with contextlib.suppress(OSError, ValueError):  # no such group, or a limit that reads `max`
                    room = int((folder / limit).read_text()) - int((folder / used).read_text())
                    files = dict(pair.split() for pair in (folder / "memory.stat").read_text().splitlines())
                    yield room + int(files[idle])
