"""What the device says of a network: predicted, measured, and measured again where the first time was disturbed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np

from secateur.agent.latency import Protocol
from secateur.agent.runtimes import RUNTIMES
from secateur.compression.gates import gated_blocks
from secateur.definition import EvaluatorDefinition
from secateur.evaluators import int8
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.report import Report
from secateur.evaluators.devices.work import Batches
from secateur.evaluators.model_files import ModelFiles, Network
from secateur.evaluators.on_device import FIGURES, SAMPLED, Answer, OnDevice, Sample
from secateur.evaluators.parity import TORCH
from secateur.evaluators.prediction import Predictor
from secateur.evaluators.waiting import FINALIST, Loan, WaitingBudget
from secateur.records import DataRoles
from secateur.workloads.pytrees import PyTree, filled, length, tensors
from secateur.workloads.roles import collect

TIMED_BATCHES = 4
"""Different batches that latency is measured on, taken in turn."""
STREAM_SAMPLES = 64
"""Of the calibration data, in whole batches, that a network with gates is timed on: each sample takes its own path."""
STREAM_BLOCK = 2
"""Passes over those samples in a block."""
SEARCH = Protocol(copies=6, rounds=2)
"""How a candidate of the search is timed, in less than half of the time that a finalist takes."""


@dataclass(frozen=True)
class Place:
    """Where and how a network is measured.

    kept: measurements that outlive a run, None to measure everything anew.
    """

    devices: Devices
    protocol: Protocol = field(default_factory=Protocol)
    kept: Kept | None = None


def disturbed(answer: Answer | None) -> TypeGuard[Answer]:
    """Whether something else was going on when the device was asked."""
    return answer is not None and answer.report is not None and answer.report.disturbed


def asks_device(names: Sequence[str]) -> bool:
    """Whether any of these metrics needs the device."""
    return any(name in FIGURES or name == SAMPLED for name in names)


class Measuring:
    """Measures candidates of one dense network on its device.

    predictor: fitted on the device before the search, where the definition asks for one.
    """

    def __init__(
        self, definition: EvaluatorDefinition, data: DataRoles, files: ModelFiles, place: Place, waiting: WaitingBudget
    ) -> None:
        """The device is not touched before something is measured on it. waiting: what may be spent on waiting for quiet."""
        self._definition, self._data, self._files, self._place, self._waiting = definition, data, files, place, waiting
        self._inputs, _ = collect(data.calibration, 1)
        rounding = RUNTIMES[definition.runtime].rounding(definition.runtime_options)

        def on_device(batches: int, reference: bytes | None = None, *, quantized: bool = False) -> OnDevice:
            kept = place.kept if reference is None else None
            allowed = (int8.ROUNDING, "this host") if quantized else (rounding, TORCH)
            return OnDevice(place.devices, reference or files.dense.file, self._timed(batches), kept, *allowed)

        self.on_device = on_device(TIMED_BATCHES)
        self._with = on_device
        self.predictor: Predictor | None = None

    @property
    def devices(self) -> Devices:
        """What it is measured on."""
        return self._place.devices

    def predicted(self, network: Network, names: Sequence[str]) -> Answer | None:
        """What the predictor says, where latency is all that the device would be asked for."""
        from_device = {name for name in names if asks_device([name])}
        if self.predictor is None or from_device != {"latency"}:
            return None
        return self.on_device.predicted(self.predictor.predict(network.onnx))

    def measured(self, network: Network, role: str, names: Sequence[str]) -> Answer | None:
        """What the device says without waiting; None where none of the metrics needs it.

        On search data latency is timed by `SEARCH`: further rounds narrow the interval more than they narrow the spread between
        repeats, and finalists are measured again.
        """
        if not asks_device(names):
            return None
        sample = self._scored_there(role) if SAMPLED in names else None
        return self._answer(network, names, self._timing(role), sample)

    def measured_again(self, network: Network, role: str, names: Sequence[str], first: Answer, loan: Loan) -> Answer:
        """A disturbed answer after a second measurement, which waits for the device to become quiet."""
        timed = [name for name in names if name in FIGURES and name != "memory"]
        with loan.spending():
            return _replaced(first, self._answer(network, timed, replace(self._timing(role), allowance=loan.seconds)))

    def latency(self, network: Network, reference: bytes | None = None) -> Report:
        """What the device says of a network's latency, with the whole protocol. Raises EvaluationFailed and DeviceLost.

        reference: another file in the runtime's format, which runs in turn with it in place of the dense model's.
        """
        with self._waiting.lent(FINALIST) as loan:
            timing = replace(self._place.protocol, allowance=loan.seconds)
            answer = self._answer(network, ["latency"], timing, reference=reference)
            assert answer.report is not None  # noqa: S101 # latency was asked for
            loan.spent = answer.report.waited
        return answer.report

    def _answer(
        self,
        network: Network,
        names: Sequence[str],
        timing: Protocol,
        sample: Sample | None = None,
        reference: bytes | None = None,
    ) -> Answer:
        on_device, batches = self.on_device, TIMED_BATCHES
        if gated_blocks(network.module):
            batches = math.ceil(STREAM_SAMPLES / self._definition.batch)
            timing = replace(timing, whole=True, block=STREAM_BLOCK)
        if batches != TIMED_BATCHES or network.quantized or reference is not None:
            on_device = self._with(batches, reference, quantized=network.quantized)
        expected = self._files.answers(network, filled(self._inputs, on_device.parity_inputs))
        return on_device.measure(network.file, expected, names, timing, sample)

    def _timing(self, role: str) -> Protocol:
        timing = self._place.protocol
        if role != "search":
            return timing
        copies, rounds = min(SEARCH.copies, timing.copies), min(SEARCH.rounds, timing.rounds)
        return replace(SEARCH, block=timing.block, copies=copies, rounds=rounds)

    def _timed(self, batches: int) -> Batches:
        """Calibration data that the device is timed on."""
        inputs, _ = collect(self._data.calibration, batches * self._definition.batch)
        return self._whole_batches(inputs, batches)

    def _scored_there(self, role: str) -> Sample:
        """Samples of a data role that the device scores itself: of the role that everything else is scored on, and of no other.

        The search must not see what judges the finalists.
        """
        inputs, targets = collect(getattr(self._data, role), self._definition.device_samples)
        return Sample(self._whole_batches(inputs, math.ceil(length(targets) / self._definition.batch)), targets)

    def _whole_batches(self, inputs: PyTree, count: int) -> Batches:
        """So many batches as the runtime takes them; samples that are too few start again."""
        step = self._definition.batch
        arrays = [np.resize(x.numpy(), (step * count, *x.shape[1:])) for x in tensors(inputs)]
        return [tuple(np.ascontiguousarray(a[i * step : (i + 1) * step]) for a in arrays) for i in range(count)]


def _replaced(first: Answer, second: Answer) -> Answer:
    """The first one, with the latency and energy of the second, which has waited for a quiet device.

    Whatever the intervals are: the narrower of two 95 % intervals holds the truth in 92 % of cases only.
    """
    if first.report is None or second.report is None:
        return second
    # A neighbour does not change the memory, and measuring it takes a process of its own for each model: it stands.
    memory = {
        f"{side}_memory_bytes": getattr(first.report, f"{side}_memory_bytes") for side in ("candidate", "reference")
    }
    return replace(first, report=replace(second.report, **memory))
