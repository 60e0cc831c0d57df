"""A small process between the driver and NNI's manager, so that neither outlives the other. Standard library only.

Started as `python guardian.py SPECIFICATION` (a Guarded as JSON) with a pipe from the driver as its standard input. It runs the
commands; as soon as one of them ends, or the driver ends (kill -9 included: the pipe closes), it stops all of them, kills
whatever still carries their mark, and exits.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "SECATEUR_NNI_FOLDER"
"""Environment variable that every process of an experiment inherits: the experiment's folder."""

GRACE = 15.0
"""Seconds that the manager gets to stop its trials and tuner; it gives a trial five."""


@dataclass(frozen=True)
class Guarded:
    """commands: what runs, the manager last. folder: the mark. afterwards: what runs when all have ended."""

    commands: Sequence[Sequence[str]]
    folder: str
    log: str
    afterwards: Sequence[Sequence[str]] = ()


def processes_of(folder: Path | str, *having: str) -> list[int]:
    """Living processes (ids) that carry the mark of this folder, and whose command line has all of these words in it."""
    mark = f"{MARK}={folder}".encode()
    matching = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # gone in the meantime, or another user's
            pid = int(entry.name)
            if mark not in (entry / "environ").read_bytes().split(b"\0") or pid == os.getpid():
                continue
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if all(word in line for word in having):
                matching.append(pid)
    return matching


def kill_all(folder: Path | str, patience: float = 10.0) -> list[int]:
    """Kill every process with this mark. Returns those that could not be killed within `patience` seconds."""
    end = time.monotonic() + patience
    while (left := processes_of(folder)) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    return left


def guard(guarded: Guarded) -> str:
    """Run until something ends. Returns what did."""
    environment = {**os.environ, MARK: guarded.folder}
    with Path(guarded.log).open("ab") as log:
        running = [
            subprocess.Popen(  # noqa: S603 # the driver's own commands
                list(command), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            for command in guarded.commands
        ]
    try:
        ended = _first_end(running)
        running[-1].terminate()  # the manager stops its trials in good order, and on other hosts as well
        with contextlib.suppress(subprocess.TimeoutExpired):
            running[-1].wait(GRACE)
    finally:
        for process in running:
            process.kill()
            process.wait()
        kill_all(guarded.folder)
        for command in guarded.afterwards:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)  # noqa: S603
    return ended


def _first_end(running: Sequence[subprocess.Popen[bytes]]) -> str:
    driver = os.getppid()
    while True:
        for process in running:
            if process.poll() is not None:
                return f"{Path(str(process.args[0])).name} ended with {process.returncode}"  # type: ignore[index]
        readable, _, _ = select.select([sys.stdin], [], [], 0.2)
        # The pipe alone would not do: a process that the driver forked holds it open as well.
        if (readable and not os.read(sys.stdin.fileno(), 1)) or os.getppid() != driver:
            return "the driver ended"


def main() -> None:
    """Guard what the file in the first argument describes, until it is to end."""
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C reaches the driver; it closes the pipe in its own time
        signal.signal(number, signal.SIG_IGN)
    guarded = Guarded(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    ended = guard(guarded)
    with Path(guarded.log).open("a", encoding="utf-8") as log:
        log.write(f"guardian: {ended}\n")


if __name__ == "__main__":
    main()
