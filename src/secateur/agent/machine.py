"""What this device is, and how it feels: processor, memory, temperature, frequency, energy. Whatever cannot be read is None."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
"""Where /proc and /sys are; a test puts them elsewhere."""


@dataclass(frozen=True)
class Machine:
    """What a figure depends on besides the runtime. memory_mb: of the whole device. emulated: its timings mean nothing."""

    processor: str
    cores: int
    system: str
    architecture: str
    memory_mb: int | None
    governor: str | None
    emulated: bool


@dataclass(frozen=True)
class State:
    """How it is right now. temperature_c: of the hottest zone. frequency_mhz: of the slowest core asked for.

    throttled: by the device's own word. throttle_count: times that the processor has throttled since it was started.
    """

    temperature_c: float | None
    frequency_mhz: float | None
    throttled: bool | None
    throttle_count: int | None


def machine(root: Path = ROOT) -> Machine:
    """This device."""
    governor = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    processor = _processor(root)
    return Machine(
        processor,
        os.cpu_count() or 1,
        platform.system(),
        platform.machine(),
        _memory_mb(root),
        governor,
        emulated=_emulated(root),
    )


def state(cores: set[int], root: Path = ROOT) -> State:
    """How the device is now. cores: those that are measured on."""
    zones = [_number(file, 1e-3) for file in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))]
    cpus = root / "sys/devices/system/cpu"
    frequencies = [_number(cpus / f"cpu{core}/cpufreq/scaling_cur_freq", 1e-3) for core in sorted(cores)]
    counts = [_number(cpus / f"cpu{core}/thermal_throttle/core_throttle_count") for core in sorted(cores)]
    firmware = _text(
        root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    )  # a Raspberry Pi's; bits 0 to 3 are now
    known = [count for count in counts if count is not None]
    return State(
        max((zone for zone in zones if zone is not None), default=None),
        min((f for f in frequencies if f is not None), default=None),
        None if firmware is None else bool(int(firmware, 16) & 0xF),
        int(sum(known)) if known else None,
    )


def energy_counters(root: Path = ROOT) -> list[Path]:
    """RAPL's counters of whole packages (microjoules), those that this user may read."""
    domains = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    packages = [domain for domain in domains if domain.name.count(":") == 1]
    return [d / "energy_uj" for d in packages if _number(d / "energy_uj") is not None]


def spent_between(before: dict[Path, int], after: dict[Path, int]) -> float:
    """Joules between two readings (microjoules by counter); a counter that has wrapped starts again at zero."""
    total = 0
    for file, start in before.items():
        grown = after[file] - start
        if grown < 0:
            grown += int(_number(file.parent / "max_energy_range_uj") or 0)
        total += grown
    return total * 1e-6


def read_counters(files: list[Path]) -> dict[Path, int]:
    """The counters now, in microjoules."""
    return {file: int(file.read_text()) for file in files}


def _processor(root: Path) -> str:
    text = _text(root / "proc/cpuinfo") or ""
    for key in ("model name", "Model", "Hardware"):
        for line in text.splitlines():
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    board = _text(root / "proc/device-tree/model")
    return (board or platform.processor() or platform.machine()).rstrip("\0")


def _emulated(root: Path) -> bool:
    """Whether another processor's user-mode emulator does the work.

    The emulator shows through in two places: /proc/cpuinfo may be the host's, and of every process but the asking one /proc tells
    who really runs it.
    """
    foreign = platform.machine() not in ("x86_64", "i686", "AMD64") and "vendor_id" in (
        _text(root / "proc/cpuinfo") or ""
    )
    with contextlib.suppress(OSError):
        return foreign or "qemu" in str((root / f"proc/{os.getppid()}/exe").readlink())
    return foreign


def _memory_mb(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def _text(file: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip()
    return None


def _number(file: Path, scale: float = 1.0) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(_text(file) or "") * scale
    return None
