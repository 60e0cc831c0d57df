"""The program on the device: one JSON request a line comes in, JSON lines go out. Every measurement gets a process of its own.

The runtime is imported once; each request is served by a fork of this process, so it finds a clean heap, may crash, and is killed
at its deadline whatever it does. Meanwhile this process says every second that it is alive. It ends when its standard input does,
when nobody can hear it, or when nobody has asked for anything for a while: a cut link leaves nothing behind.

out: {"hello": …} once; {"alive": seconds} while a measurement runs; then one of {"result": …}, {"refused": kind, "reason": …},
{"died": signal}, {"late": seconds}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .latency import log_interval
from .machine import energy_counters, machine
from .measuring import Refused, measure
from .processes import die_with
from .runtimes import RUNTIMES, Available

HEARTBEAT = 1.0
"""Seconds between signs of life."""
IDLE = 120.0
"""Seconds without a request after which the agent goes by itself."""


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where pushed files lie")
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), required=True)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the runtime")
    options = parser.parse_args()
    chosen = RUNTIMES[options.runtime].chosen(dict(option.split("=", 1) for option in options.option))
    folder = options.folder.resolve()
    (folder / "files").mkdir(parents=True, exist_ok=True)
    availability = RUNTIMES[options.runtime].probe(chosen)
    say(
        {
            "hello": {
                "machine": asdict(machine()),
                "energy": bool(energy_counters()),
                "runtime": {"available": isinstance(availability, Available), **asdict(availability)},
            }
        }
    )
    log_interval(np.ones(2), np.arange(2))  # whatever numpy loads at first use is loaded before the forks
    requests = _Requests()
    while True:
        line = requests.next(IDLE)
        if line is None:
            return
        if not _serve(json.loads(line), folder, requests):
            return


def say(message: dict[str, Any]) -> None:
    """One line to the host. Nobody there: the end."""
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, OSError):
        os._exit(0)


class _Requests:
    """Lines of standard input, read without blocking."""

    def __init__(self) -> None:
        self._rest = b""
        self.over = False

    def next(self, seconds: float) -> bytes | None:
        """The next line; None where there is none within `seconds`, or where the input is over."""
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if self.over or left <= 0:
                return None
            self.look(left)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def look(self, seconds: float, *others: int) -> set[int]:
        """Wait for input here or on other descriptors; which of those have some."""
        own = [] if self.over else [sys.stdin.fileno()]
        readable, _, _ = select.select([*own, *others], [], [], seconds)
        if sys.stdin.fileno() in readable:
            data = os.read(sys.stdin.fileno(), 65536)
            self._rest += data
            self.over = not data
        return {descriptor for descriptor in readable if descriptor != sys.stdin.fileno()}


def _serve(request: dict[str, Any], folder: Path, requests: _Requests) -> bool:
    """Answer one request. False: the host has gone meanwhile."""
    receive, send = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(receive)
        die_with(parent)
        _answer(request, folder, send)
    os.close(send)
    started, last_beat, answer = time.monotonic(), time.monotonic(), b""
    try:
        while True:
            now = time.monotonic()
            if requests.over:
                return False
            if now - started > request["deadline"]:
                say({"late": request["deadline"]})
                return True
            if now - last_beat >= HEARTBEAT:
                last_beat = now
                say({"alive": round(now - started, 1)})
            if requests.look(HEARTBEAT / 2, receive):
                data = os.read(receive, 1 << 20)
                answer += data
                if not data:
                    break
    finally:
        os.close(receive)
        with contextlib.suppress(ProcessLookupError):
            if not answer.endswith(b"\n"):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    say(json.loads(answer) if answer else {"died": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0})
    return True


def _answer(request: dict[str, Any], folder: Path, send: int) -> None:
    """Measure in the forked child, write the answer to `send`, and exit."""
    os.dup2(2, 1)  # what a runtime prints is none of the host's lines
    try:
        answer: dict[str, Any] = {"result": measure(request, folder)}
    except Refused as error:
        answer = {"refused": error.kind, "reason": str(error)}
    except Exception as error:  # noqa: BLE001 # a bug, or a file system that is full: the host must hear of it
        answer = {"refused": "error", "reason": f"{type(error).__name__}: {error}"}
    with os.fdopen(send, "wb") as stream:
        stream.write(json.dumps(answer).encode() + b"\n")
    os._exit(0)
