"""A device that says what a test tells it to: for everything that a real one does seldom."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from secateur.agent.latency import Protocol
from secateur.agent.machine import Machine
from secateur.evaluators.devices.session import Device
from secateur.evaluators.devices.transport import Ended
from secateur.evaluators.devices.work import Setup, Work

BOARD = Machine("Board", 4, "Linux", "aarch64", 4000, None, emulated=False)
INPUTS = [(np.ones((1, 3), np.float32),)]
WORK = Work(b"candidate", b"reference", INPUTS, Protocol())
ROOM = {"temperature_c": 20.0, "frequency_mhz": 1000.0, "throttled": None, "throttle_count": None}
ENDED = object()
"""Said instead of a line: the agent has ended."""
SILENT = object()
"""Said instead of a line: nothing, for as long as anyone waits."""


def result(ratio: float = 0.5, reference_ms: float = 2.0, **more: Any) -> dict[str, Any]:
    """An answer of the agent's to a request for latency."""
    times = {"min": reference_ms, "p50": reference_ms, "p90": reference_ms}
    faster = {name: ratio * value for name, value in times.items()}
    return {
        "result": {
            "protocol": 2, "cores": [3], "ratio": ratio, "interval": [ratio, ratio], "rounds": 8, "copies": 4,
            "candidate_ms": faster, "reference_ms": times, "drift": 0.0, "disturbed": False, "waited": 0.0, "throttled": False, "before": ROOM, "after": ROOM, **more,
        }
    }  # fmt: skip


def hello(machine: Machine = BOARD, runtime: dict[str, Any] | None = None) -> dict[str, Any]:
    """The agent's first line."""
    runtime = runtime or {"available": True, "version": "1.0"}
    said = {"machine": asdict(machine), "energy": False, "runtime": runtime}
    return {"hello": said}


class ScriptedTransport:
    """answer: request → lines (dictionaries, ENDED, SILENT, or an exception to be raised). greetings: the first line of each agent."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], Sequence[Any]],
        greetings: Callable[[], Any] = hello,
        name: str = "board",
    ) -> None:
        self.name, self.answer, self.greetings = name, answer, greetings
        self.files: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.commands: list[list[str]] = []
        self.closed = 0

    def put(self, content: bytes, path: str) -> None:
        self.puts.append(path)
        self.files[path] = content

    def exec_stream(self, command: Sequence[str], seconds: float) -> _ScriptedStream:  # noqa: ARG002 # the interface
        self.commands.append(list(command))
        return _ScriptedStream(self)

    def get(self, path: str) -> bytes:
        return self.files[path]

    def close(self) -> None:
        self.closed += 1


class _ScriptedStream:
    def __init__(self, transport: ScriptedTransport) -> None:
        self._transport = transport
        self._lines: list[Any] = [transport.greetings()]

    def send(self, line: str) -> None:
        request = json.loads(line)
        self._transport.requests.append(request)
        self._lines += self._transport.answer(request)

    def receive(self, seconds: float) -> str | None:  # noqa: ARG002 # nobody waits here
        line = self._lines.pop(0) if self._lines else SILENT
        if line is SILENT:
            raise TimeoutError
        if isinstance(line, Exception):
            raise line
        return None if line is ENDED else json.dumps(line)

    def end(self) -> Ended:
        return Ended(-9, "Traceback …\nKilled\n")


def device(transport: ScriptedTransport, waits: list[float] | None = None, **setup: Any) -> Device:
    """A device behind it that never sleeps. waits: what it would have slept."""
    return Device(transport, Setup("onnxruntime", "onnx", **setup), (waits if waits is not None else []).append)
