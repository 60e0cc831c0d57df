"""What a person waits for: `secateur --help`, and the demo from nothing to the registered front.

`--help` stands beside a Python that does nothing and one that imports torch. The demo is `secateur run quick` in an empty folder
with an empty cache: it trains its network, searches, fine-tunes, measures, registers. Peak memory is the process's largest
resident set.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, table, write_json


def run(*command: str, cwd: str | None = None, **environment: str) -> tuple[float, float]:
    """Wall seconds and peak resident MiB of a command. Raises CalledProcessError where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, usage.ru_maxrss / 1024  # Linux counts in KiB


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
            elapsed, _ = run(*command)
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
            elapsed, peak = run(secateur, "run", "quick", cwd=folder, SECATEUR_CACHE=f"{folder}/cache")
        table(
            "the demo", ["", "seconds", "peak memory, MiB"], [["secateur run quick", f"{elapsed:.0f}", f"{peak:.0f}"]]
        )
        figures["demo"] = {"seconds": elapsed, "peak_mib": peak}
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
