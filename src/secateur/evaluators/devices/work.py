"""What a device is asked for: how models are run there, what is measured, and what comes back."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.agent.latency import Protocol
from secateur.evaluators.devices.report import Report

Array = NDArray[Any]
Batches = Sequence[Sequence[Array]]


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


def packed(batches: Batches) -> bytes:
    """Batches as the agent reads them: an .npz file with an array `<batch>_<input>` each."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"{i}_{j}": array for i, batch in enumerate(batches) for j, array in enumerate(batch)}
    np.savez(buffer, **named)
    return buffer.getvalue()
