"""What a person waits for: `secateur --help`, and the demo from nothing to the registered front.

`--help` stands beside a Python that does nothing and one that imports torch. The demo is `secateur run quick` in an empty folder
with an empty cache: it trains its network, searches, fine-tunes, measures, registers. Peak memory is that of the driver and its
workers together (PSS: what they share counts once), looked at four times a second.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, table, write_json


def run(*command: str) -> float:
    """Wall seconds of a command. Raises CalledProcessError where it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def run_watched(*command: str, cwd: str, **environment: str) -> tuple[float, float]:
    """Wall seconds of a command, and the most MiB that it and its descendants hold together (Linux).

    Raises CalledProcessError where it fails.
    """
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # by which its descendants are known
    )
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.25)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, peak


def memory_of(session: int) -> float:
    """MiB that the processes of a session hold together."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # processes end while they are looked at
            if os.getsid(int(folder.name)) == session:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024  # from KiB


def main() -> None:
    """Print the table."""
    options = arguments(__doc__).parse_args()
    secateur = str(Path(sys.executable).with_name("secateur"))
    starts = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "secateur --help": (secateur, "--help"),
        "python -c 'import torch'": (sys.executable, "-c", "import torch"),
    }
    times: dict[str, list[float]] = {name: [] for name in starts}
    for turn in range(4 if options.quick else 11):
        for name, command in starts.items():
            elapsed = run(*command)
            if turn:  # the first one warms the page cache
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    table(
        f"start-up, median of {len(times['secateur --help'])}",
        ["", "seconds", "over a bare python"],
        [[name, f"{value:.2f}", f"{value / medians['python -c pass']:.1f}"] for name, value in medians.items()],
    )
    figures: dict[str, object] = {"start_s": medians}
    if not options.quick:
        with tempfile.TemporaryDirectory() as folder:
            elapsed, peak = run_watched(secateur, "run", "quick", cwd=folder, SECATEUR_CACHE=f"{folder}/cache")
        table(
            "the demo", ["", "seconds", "peak memory, MiB"], [["secateur run quick", f"{elapsed:.0f}", f"{peak:.0f}"]]
        )
        figures["demo"] = {"seconds": elapsed, "peak_mib": peak}
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
