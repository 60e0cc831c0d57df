"""The runtime on this host: what scores candidates, and checks files before they travel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur.agent import runtimes as agent
from secateur.agent.machine import machine
from secateur.agent.runtimes import Available, Batch, Runtime, RuntimeFailure, Session, Settings
from secateur.errors import EvaluationFailed
from secateur.memory import give_back
from secateur.plugins import Registry

RUNTIMES: Registry[Runtime] = Registry(
    "secateur.runtimes", Runtime, agent.RUNTIMES, lambda name, runtime: agent.RUNTIMES.update({name: runtime})
)
"""The agent's registry, and plug-ins, which join that one when they are imported."""
FALLBACK = "onnxruntime"
"""What scores candidates where the device's runtime is not on this host, or does not read ONNX."""


class HostSession:
    """An opened model."""

    def __init__(self, session: Session) -> None:
        """session: of the runtime."""
        self._session = session

    def run(self, inputs: Batch) -> Batch:
        """The model's outputs for one batch. Raises EvaluationFailed."""
        try:
            return self._session.run(inputs)
        except RuntimeFailure as error:
            raise EvaluationFailed(str(error)) from error


@dataclass(frozen=True)
class Host:
    """A runtime on this host, with its settings."""

    runtime: str
    version: str
    settings: Settings

    @property
    def fingerprint(self) -> str:
        """What scores depend on: processor, system, runtime."""
        here = machine()
        return f"{here.processor}, {here.cores} cores, {here.system} {here.architecture}, {self.runtime} {self.version}"

    def open(self, content: bytes) -> HostSession:
        """content: an ONNX model. Raises EvaluationFailed where it cannot be loaded."""
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(content)
            file.flush()
            try:
                return HostSession(RUNTIMES[self.runtime].open(Path(file.name), self.settings))
            except RuntimeFailure as error:
                raise EvaluationFailed(str(error)) from error
            finally:
                give_back()


def host_for(runtime: str, options: Mapping[str, str], threads: int) -> Host:
    """What scores ONNX files on this host: the same runtime where it can, else ONNX Runtime on the CPU."""
    threads = min(threads, os.cpu_count() or 1)  # those of the device may be more
    wanted = RUNTIMES[runtime]
    if wanted.format == RUNTIMES[FALLBACK].format and wanted.in_process:
        availability = wanted.probe(wanted.chosen(options))
        if isinstance(availability, Available):
            return Host(runtime, availability.version, Settings(threads, options))
    instead = RUNTIMES[FALLBACK].probe(RUNTIMES[FALLBACK].chosen({}))
    assert isinstance(instead, Available)  # noqa: S101 # secateur depends on it
    return Host(FALLBACK, instead.version, Settings(threads))
