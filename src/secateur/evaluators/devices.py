"""Where a figure was measured, in words that travel with it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from secateur.evaluators.runtimes import RUNTIMES

DEVICES = {"local": "this host"}
"""device → what it is."""


def fingerprint(runtime: str, threads: int) -> str:
    """Processor, cores, system, runtime with its version, and threads: figures compare only where these agree."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"{runtime} {RUNTIMES[runtime].version()}, {threads} thread{'s' if threads > 1 else ''}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
