"""One conversation with the agent on a device: start it, send it files, ask, listen."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from secateur.agent.machine import Machine
from secateur.errors import DeviceLost, DeviceRefused, EvaluationFailed, MeterFailed
from secateur.evaluators.devices.bundle import STARTER, bundle
from secateur.evaluators.devices.report import Hello, Report
from secateur.evaluators.devices.transport import Ended, Stream, Transport
from secateur.evaluators.devices.work import Array, Measured, Setup, Work, packed
from secateur.redaction import scrubbed

SILENCE = 15.0
"""Seconds without a sign of life after which an agent counts as hung or cut off; it gives one every second."""
START = 60.0
"""The same while it starts: a small board imports a runtime for many seconds."""
LIFETIME = 24 * 3600.0
"""Seconds after which the device ends an agent, whatever happens."""

_REPORT: TypeAdapter[Report] = TypeAdapter(Report)
_MACHINE: TypeAdapter[Machine] = TypeAdapter(Machine)


class AgentDied(Exception):
    """The agent, or the process that measured, ended without an answer."""


class Conversation:
    """An agent that runs. hello: what the device says of itself. over: whether the agent has ended."""

    def __init__(self, transport: Transport, setup: Setup) -> None:
        """Starts the agent, pushed first where it is not there. Raises DeviceLost and DeviceRefused."""
        self.name, self._transport, self._setup = transport.name, transport, setup
        self._pushed: set[str] = set()
        agent = bundle(setup.runtime)
        path = f"{setup.folder}/agent-{agent.sha256[:12]}.pyz"
        greeting = self._start(path)
        if greeting is not None and "absent" in greeting:
            self.end()
            transport.put(agent.content, path)
            greeting = self._start(path)
        try:
            self.hello = self._understood(greeting, path)
        except DeviceLost:
            self.end()
            raise
        self._used = time.monotonic()

    @property
    def idle(self) -> float:
        """Seconds since the agent was last asked."""
        return time.monotonic() - self._used

    def measure(self, work: Work) -> Measured:
        """The agent's answer. Raises AgentDied, DeviceLost, EvaluationFailed where the candidate is at fault, MeterFailed."""
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
            raise AgentDied(f"the measuring process died (signal {answer['died']})")
        if answer["refused"] == "meter":
            raise MeterFailed(f"on {self.name}: {scrubbed(answer['reason'])}")
        if answer["refused"] == "failed":
            raise EvaluationFailed(f"on {self.name}: {answer['reason']}")
        raise DeviceLost(f"{self.name}: {answer['reason']}")

    def end(self) -> Ended:
        """End the agent. May be called twice."""
        self.over = True
        try:
            return self._stream.end()
        except DeviceLost:
            return Ended(None, "")

    def _start(self, path: str) -> dict[str, Any] | None:
        """The first line of a new agent, None where it ends without one."""
        setup = self._setup
        options = [f"{name}={value}" for name, value in sorted(setup.options.items())]
        command = [
            *shlex.split(setup.python),
            "-c",
            STARTER,
            path,
            bundle(setup.runtime).sha256,
            "--folder",
            setup.folder,
            "--runtime",
            setup.runtime,
        ]
        command += [word for option in options for word in ("--option", option)]
        self._stream: Stream = self._transport.exec_stream(command, LIFETIME)
        self.over = False
        try:
            return self._next_message(START)
        except DeviceLost:
            self.end()
            raise

    def _understood(self, greeting: Mapping[str, Any] | None, path: str) -> Hello:
        """Raises DeviceLost and DeviceRefused where it is none."""
        setup = self._setup
        if greeting is None:
            raise DeviceRefused(
                f"{self.name}: `{setup.python}` does not start the measuring program ({_last_line(self.end().errors)}). "
                "It needs Python 3.9 or newer with numpy there; `python:` in the device's definition names another interpreter."
            )
        if "absent" in greeting:
            raise DeviceLost(f"{self.name}: {path} does not arrive whole.")
        if "hello" not in greeting:
            raise DeviceRefused(
                f"{self.name}: {greeting.get('unusable', 'the folder cannot be used')}. Put that right, or name another `folder` "
                "in the device's definition (`device: local` uses TMPDIR)."
            )
        hello = greeting["hello"]
        if not hello["runtime"]["available"]:
            raise DeviceRefused(f"{self.name}: {setup.runtime} cannot be used there: {hello['runtime']['reason']}")
        return Hello(_MACHINE.validate_python(hello["machine"]), hello["runtime"]["version"], hello["energy"])

    def _next_message(self, seconds: float) -> dict[str, Any] | None:
        """The agent's next line, None where it has ended. Raises DeviceLost where it is silent."""
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

    def _answered(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._used = time.monotonic()
        self._stream.send(json.dumps(request))
        while True:
            message = self._next_message(SILENCE)
            if message is None:
                ended = self.end()
                raise AgentDied(f"the measuring program ended (exit code {ended.code}; {_last_line(ended.errors)})")
            if "alive" not in message:
                return message

    def _request(self, work: Work) -> dict[str, Any]:
        suffix = self._setup.format
        files = {
            "candidate": self._push(work.candidate, suffix),
            "reference": self._push(work.reference, suffix),
            "inputs": self._push(packed(work.inputs), "npz"),
        }
        for name, batches in (("parity", work.parity), ("sample", work.sample)):
            if batches:
                files[name] = self._push(packed(batches), "npz")
        return {
            "runtime": self._setup.runtime,
            "options": dict(self._setup.options),
            "threads": self._setup.threads,
            "files": files,
            "figures": sorted(work.figures),
            "timing": asdict(work.timing),
            "energy_command": self._setup.energy_command,
            "deadline": self._setup.deadline,
        }

    def _push(self, content: bytes, suffix: str) -> dict[str, str]:
        """Put a file there, once, under the name of its content."""
        digest = hashlib.sha256(content).hexdigest()
        path = f"files/{digest}.{suffix}"
        if path not in self._pushed:
            self._transport.put(content, f"{self._setup.folder}/{path}")
            self._pushed.add(path)
        return {"path": path, "sha256": digest}

    def _taken(self, result: dict[str, Any]) -> Measured:
        parity = [[_unpacked(entry) for entry in outputs] for outputs in result.pop("parity", ())]
        sample = None
        if "sample" in result:
            fetched = self._transport.get(f"{self._setup.folder}/{result.pop('sample')}")
            with np.load(io.BytesIO(fetched), allow_pickle=False) as stored:
                sample = [stored[name] for name in stored.files]
        return Measured(_REPORT.validate_python(result) if "ratio" in result else None, parity, sample)


def _unpacked(entry: Mapping[str, Any]) -> Array:
    data = np.frombuffer(base64.b64decode(entry["data"]), np.dtype(entry["dtype"]))
    return data.reshape(entry["shape"])


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
