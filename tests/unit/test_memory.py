from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from secateur.memory import give_back, left

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


GROUPS = {
    "version 2": ("0::/a/b", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file", "max"),
    "version 1": (
        "4:cpu,memory:/a/b", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file", str(2**63 - 4096),
    ),
}  # fmt: skip


@pytest.fixture
def machine(tmp_path):
    """The files of a machine with 8 MB available, made by the version of control groups; group → (limit, used, idle files)."""

    def make(version, groups):
        line, mount, limit, used, idle, _ = GROUPS[version]
        for name, text in {"meminfo": "MemTotal: 9 kB\nMemAvailable:    8000 kB\n", "self/cgroup": line + "\n"}.items():
            file = tmp_path / "proc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for group, (most, taken, files) in groups.items():
            folder = tmp_path / mount / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / limit).write_text(f"{most}\n")
            (folder / used).write_text(f"{taken}\n")
            (folder / "memory.stat").write_text(f"anon 7\n{idle} {files}\n")
        return tmp_path

    return make


@pytest.mark.parametrize("version", GROUPS)
def test_what_is_left_is_what_the_narrowest_control_group_leaves(machine, version):
    none = GROUPS[version][-1]
    assert left(machine(version, {})) == 8_192_000, "no group is there to limit it"
    assert left(machine(version, {"": (none, 9000, 0), "a/b": (none, 5, 0)})) == 8_192_000
    assert left(machine(version, {"a": (5000, 3000, 500)})) == 2500
    assert left(machine(version, {"a/b": (4000, 3900, 100)})) == 200
    assert left(machine(version, {"a/b": (4000, 4100, 0)})) == 0


def test_where_the_system_does_not_say_nothing_is_known_to_be_left(tmp_path):
    assert left(tmp_path) is None
