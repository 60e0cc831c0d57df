"""The runtime on this host: what scores candidates, and checks files before they travel."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from secateur.agent.machine import machine
from secateur.agent.runtimes import RUNTIMES, Available, RuntimeFailure, Session, Settings
from secateur.errors import EvaluationFailed

Array = NDArray[Any]
FALLBACK = "onnxruntime"
"""What scores ONNX files where the device's runtime is not on this host (TensorRT, say)."""


class HostSession:
    """An opened model."""

    def __init__(self, session: Session) -> None:
        """session: of the runtime."""
        self._session = session

    def run(self, inputs: Sequence[Array]) -> Array:
        """The model's output for one batch. inputs: one array per model input, (batch, …). Raises EvaluationFailed."""
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
        """content: a model in the runtime's format. Raises EvaluationFailed where it cannot be loaded."""
        chosen = RUNTIMES[self.runtime]
        with tempfile.NamedTemporaryFile(suffix=f".{chosen.format}") as file:
            file.write(content)
            file.flush()
            try:
                return HostSession(chosen.open(Path(file.name), self.settings))
            except RuntimeFailure as error:
                raise EvaluationFailed(str(error)) from error


def host_for(runtime: str, options: Mapping[str, str], threads: int) -> Host:
    """The same runtime where it is here, else ONNX Runtime on the CPU. Raises EvaluationFailed where that reads another format."""
    wanted = RUNTIMES[runtime]
    found = wanted.probe(wanted.chosen(options))
    if isinstance(found, Available):
        return Host(runtime, found.version, Settings(threads, options))
    instead = RUNTIMES[FALLBACK].probe(RUNTIMES[FALLBACK].chosen({}))
    if wanted.format != RUNTIMES[FALLBACK].format or not isinstance(instead, Available):
        raise EvaluationFailed(f"this host cannot score {wanted.format} files: {found.reason}")
    return Host(FALLBACK, instead.version, Settings(threads))
