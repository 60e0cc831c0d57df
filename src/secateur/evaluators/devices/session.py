"""The host's side of one device: push the agent and the models, ask, listen, judge what went wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from secateur.agent.latency import Protocol
from secateur.agent.machine import Machine
from secateur.agent.runtimes import RUNTIMES
from secateur.agent.serve import IDLE
from secateur.errors import DeviceLost, DeviceRefused, EvaluationFailed, MeterFailed
from secateur.evaluators.devices.bundle import STARTER, bundle
from secateur.evaluators.devices.report import Hello, Report
from secateur.evaluators.devices.transport import Stream, Transport
from secateur.redaction import scrubbed

Array = NDArray[Any]
Batches = Sequence[Sequence[Array]]
T = TypeVar("T")

SILENCE = 15.0
"""Seconds without a sign of life after which an agent counts as hung or cut off; it gives one every second."""
LIFETIME = 24 * 3600.0
"""Seconds after which the device ends an agent, whatever happens."""
RETRIES = (0.0, 2.0, 8.0)
"""Seconds to wait before each attempt to reach a device that was lost."""

_REPORT: TypeAdapter[Report] = TypeAdapter(Report)
_MACHINE: TypeAdapter[Machine] = TypeAdapter(Machine)


@dataclass(frozen=True)
class Setup:
    """How models are run on a device, the same for candidate and reference.

    python: words that start an interpreter there. folder: where the agent and pushed files lie. format: of the models' files.
    energy_command: prints joules spent so far. deadline: seconds of one measurement.
    """

    runtime: str
    format: str
    threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    python: str = "python3"
    folder: str = ".cache/secateur"
    energy_command: str | None = None
    deadline: float = 300.0


@dataclass(frozen=True)
class Work:
    """What is to be measured.

    candidate, reference: files in the setup's format. inputs: batches that both are timed on. parity: batches whose outputs come
    back. sample: batches whose outputs come back as one array each. figures: of `latency`, `memory`, `energy`.
    """

    candidate: bytes
    reference: bytes
    inputs: Batches
    timing: Protocol
    figures: frozenset[str] = frozenset({"latency"})
    parity: Batches = ()
    sample: Batches = ()


@dataclass(frozen=True)
class Measured:
    """report: None where no latency was asked for. parity: the outputs of each batch. sample: those of all its batches, or None."""

    report: Report | None
    parity: Batches
    sample: Sequence[Array] | None


class _AgentDied(Exception):
    """The agent, or the process that measured, ended without an answer."""


class Device:
    """One device. `measure` may be called from one thread at a time."""

    def __init__(self, transport: Transport, setup: Setup, wait: Callable[[float], None] = time.sleep) -> None:
        """Nothing is opened yet."""
        self.name, self.setup = transport.name, setup
        self._transport, self._wait = transport, wait
        self._stream: Stream | None = None
        self._hello: Hello | None = None
        self._pushed: set[str] = set()
        self._used = 0.0

    @property
    def hello(self) -> Hello:
        """What the device says of itself. Raises DeviceLost or DeviceRefused."""
        if self._hello is None:
            self._hello = self._reached(self._greeted)
        return self._hello

    @property
    def fingerprint(self) -> str:
        """Of the device with its runtime."""
        usual = RUNTIMES[self.setup.runtime].chosen({})
        unusual = {name: value for name, value in self.setup.options.items() if usual.get(name) != value}
        return self.hello.fingerprint(self.setup.runtime, self.setup.threads, unusual)

    def measure(self, work: Work) -> Measured:
        """Run it there. Raises EvaluationFailed where the candidate is at fault, DeviceLost where the device is.

        A lost device is looked for again, three times within half a minute. An agent that dies twice over a candidate is the
        candidate's fault only if it then measures the reference.
        """
        try:
            return self._twice(work)
        except _AgentDied as death:
            try:
                self._twice(Work(work.reference, work.reference, work.inputs, Protocol(block=1, copies=2, rounds=1)))
            except (_AgentDied, EvaluationFailed) as error:
                raise DeviceLost(
                    f"{self.name}: {death}, and does not measure the reference model either ({error})."
                ) from error
            raise EvaluationFailed(f"on {self.name} {death}, twice; the reference model runs there") from death

    def close(self) -> None:
        """End the agent and the connection."""
        self._hang_up()
        self._transport.close()

    def _twice(self, work: Work) -> Measured:
        try:
            return self._reached(lambda: self._asked(work))
        except _AgentDied:
            return self._reached(lambda: self._asked(work))

    def _reached(self, attempt: Callable[[], T]) -> T:
        """Do something there, on a new connection where the old one is gone."""
        for number, pause in enumerate(RETRIES, start=1):
            self._wait(pause)
            try:
                return attempt()
            except DeviceRefused:
                self._hang_up()
                raise
            except DeviceLost:
                self._hang_up()
                self._transport.close()
                if number == len(RETRIES):
                    raise
        raise AssertionError  # the last attempt returns or raises

    def _greeted(self) -> Hello:
        """Start the agent, pushed first where it is not there."""
        agent = bundle(self.setup.runtime)
        path = f"{self.setup.folder}/agent-{agent.sha256[:12]}.pyz"
        said = self._start(path)
        if said is not None and "absent" in said:
            self._hang_up()
            self._transport.put(agent.content, path)
            said = self._start(path)
        if said is None:
            assert self._stream is not None  # noqa: S101 # it was started
            ended = self._stream.end()
            self._hang_up()
            raise DeviceRefused(
                f"{self.name}: `{self.setup.python}` does not start the measuring program ({_last_line(ended.errors)}). "
                "It needs Python 3.9 or newer with numpy there; `python:` in the device's definition names another interpreter."
            )
        if "hello" not in said:
            self._hang_up()
            if "absent" in said:
                raise DeviceLost(f"{self.name}: {path} does not arrive whole.")
            raise DeviceRefused(
                f"{self.name}: {said.get('unusable', 'the folder cannot be used')}. Put that right, or name another `folder` in "
                "the device's definition (`device: local` uses TMPDIR)."
            )
        hello = said["hello"]
        if not hello["runtime"]["available"]:
            self._hang_up()
            raise DeviceRefused(f"{self.name}: {self.setup.runtime} cannot be used there: {hello['runtime']['reason']}")
        self._used = time.monotonic()
        machine = _MACHINE.validate_python(hello["machine"])
        return Hello(machine, hello["runtime"]["version"], hello["energy"])

    def _start(self, path: str) -> dict[str, Any] | None:
        options = [f"{name}={value}" for name, value in sorted(self.setup.options.items())]
        command = [
            *shlex.split(self.setup.python),
            "-c",
            STARTER,
            path,
            bundle(self.setup.runtime).sha256,
            "--folder",
            self.setup.folder,
            "--runtime",
            self.setup.runtime,
        ]
        command += [word for option in options for word in ("--option", option)]
        self._stream = self._transport.exec_stream(command, LIFETIME)
        return self._next_message(60.0)  # a small board imports a runtime for many seconds

    def _next_message(self, seconds: float) -> dict[str, Any] | None:
        """The agent's next line, None where it has ended. Raises DeviceLost where it is silent."""
        assert self._stream is not None  # noqa: S101 # callers have started it
        while True:
            try:
                line = self._stream.receive(seconds)
            except TimeoutError as error:
                raise DeviceLost(f"{self.name}: no sign of life for {seconds:g} s.") from error
            if line is None:
                return None
            with contextlib.suppress(
                json.JSONDecodeError
            ):  # a runtime that prints to the terminal behind Python's back
                message = json.loads(line)
                if isinstance(message, dict):
                    return message

    def _hang_up(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(DeviceLost):
                self._stream.end()
            self._stream = None

    def _asked(self, work: Work) -> Measured:
        if time.monotonic() - self._used > IDLE / 2:
            self._hang_up()  # it may have gone by itself, or be about to
        if self._stream is None:
            self._pushed.clear()  # whoever was away may have been cleaned
            self._hello = self._greeted()
        again: set[str] = set()
        answer = self._answered(self._request(work))
        while answer.get("refused") in ("missing", "corrupt"):
            path = answer["reason"]
            if path in again:
                raise DeviceLost(f"{self.name}: {path} does not arrive whole, pushed twice.")
            again.add(path)
            self._pushed.discard(path)
            answer = self._answered(self._request(work))
        if "result" in answer:
            return self._taken(answer["result"])
        if "late" in answer:
            raise EvaluationFailed(f"it took longer than {answer['late']:g} s on {self.name}")
        if "died" in answer:
            raise _AgentDied(f"the measuring process died (signal {answer['died']})")
        if answer["refused"] == "meter":
            raise MeterFailed(f"on {self.name}: {scrubbed(answer['reason'])}")
        if answer["refused"] == "failed":
            raise EvaluationFailed(f"on {self.name}: {answer['reason']}")
        raise DeviceLost(f"{self.name}: {answer['reason']}")

    def _answered(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._used = time.monotonic()
        assert self._stream is not None  # noqa: S101 # `_asked` has started it
        self._stream.send(json.dumps(request))
        while True:
            message = self._next_message(SILENCE)
            if message is None:
                ended = self._stream.end()
                self._hang_up()
                raise _AgentDied(f"the measuring program ended (exit code {ended.code}; {_last_line(ended.errors)})")
            if "alive" not in message:
                return message

    def _request(self, work: Work) -> dict[str, Any]:
        suffix = self.setup.format
        files = {
            "candidate": self._push(work.candidate, suffix),
            "reference": self._push(work.reference, suffix),
            "inputs": self._push(packed(work.inputs), "npz"),
        }
        for name, batches in (("parity", work.parity), ("sample", work.sample)):
            if batches:
                files[name] = self._push(packed(batches), "npz")
        return {
            "runtime": self.setup.runtime,
            "options": dict(self.setup.options),
            "threads": self.setup.threads,
            "files": files,
            "figures": sorted(work.figures),
            "timing": asdict(work.timing),
            "energy_command": self.setup.energy_command,
            "deadline": self.setup.deadline,
        }

    def _push(self, content: bytes, suffix: str) -> dict[str, str]:
        """Put a file there, once, under the name of its content."""
        digest = hashlib.sha256(content).hexdigest()
        path = f"files/{digest}.{suffix}"
        if path not in self._pushed:
            self._transport.put(content, f"{self.setup.folder}/{path}")
            self._pushed.add(path)
        return {"path": path, "sha256": digest}

    def _taken(self, result: dict[str, Any]) -> Measured:
        parity = [[_unpacked(entry) for entry in outputs] for outputs in result.pop("parity", ())]
        sample = None
        if "sample" in result:
            fetched = self._transport.get(f"{self.setup.folder}/{result.pop('sample')}")
            with np.load(io.BytesIO(fetched), allow_pickle=False) as stored:
                sample = [stored[name] for name in stored.files]
        return Measured(_REPORT.validate_python(result) if "ratio" in result else None, parity, sample)


def packed(batches: Batches) -> bytes:
    """Batches as the agent reads them: an .npz file with an array `<batch>_<input>` each."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"{i}_{j}": array for i, batch in enumerate(batches) for j, array in enumerate(batch)}
    np.savez(buffer, **named)
    return buffer.getvalue()


def _unpacked(entry: Mapping[str, Any]) -> Array:
    data = np.frombuffer(base64.b64decode(entry["data"]), np.dtype(entry["dtype"]))
    return data.reshape(entry["shape"])


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
