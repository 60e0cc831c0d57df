"""Figures that only the device can give: what is sent there for one network, and whether its answer may be believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.agent.latency import Protocol
from secateur.agent.runtimes import ROUNDING
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.report import Report
from secateur.evaluators.devices.work import Batches, Work
from secateur.evaluators.parity import TORCH, check_parity
from secateur.evaluators.prediction import Prediction
from secateur.workloads.pytrees import PyTree, length

FIGURES: Mapping[str, str] = {"latency": "latency", "throughput": "latency", "memory": "memory", "energy": "energy"}
"""Metric → what the device must be asked for."""
SAMPLED = "device_accuracy"
"""The metric that needs outputs of the device itself."""


@dataclass(frozen=True)
class Answer:
    """What is known of one network on the device.

    device: fingerprint. emulated: its timings mean nothing. batch: samples per run. report: None where it was only predicted.
    sample: each output, in order, and the targets (n, …) of the samples that it scored.
    """

    device: str
    emulated: bool
    batch: int
    report: Report | None = None
    sample: tuple[list[Tensor], PyTree] | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Sample:
    """Samples of one data role that the device scores itself: in batches, the last one filled up, and their targets (n, …)."""

    batches: Batches
    targets: PyTree


class OnDevice:
    """Candidates of one dense network, measured against it on the devices of a definition."""

    def __init__(
        self,
        devices: Devices,
        reference: bytes,
        inputs: Batches,
        kept: Kept | None,
        rounding: float = ROUNDING,
        than: str = TORCH,
    ) -> None:
        """reference: the dense model's file. inputs: batches for timing, the first one for parity too.

        kept: earlier measurements, None to measure everything anew. rounding, than: see parity.
        """
        self.devices, self._reference, self._inputs, self._kept = devices, reference, inputs, kept
        self._rounding, self._than = rounding, than

    @property
    def parity_inputs(self) -> tuple[Tensor, ...]:
        """What the device is asked, and what it is compared with: (batch, …) tensors, in order."""
        return tuple(torch.from_numpy(x) for x in self._inputs[0])

    def measure(
        self, file: bytes, expected: PyTree, names: Collection[str], timing: Protocol, sample: Sample | None = None
    ) -> Answer:
        """What is behind the named metrics. file: in the runtime's format. expected: the outputs for `parity_inputs`.

        sample: what the device is to score itself.

        Raises EvaluationFailed where the device's outputs are others, DeviceLost where it cannot be asked.
        """
        figures = frozenset({"latency", *(FIGURES[name] for name in names if name in FIGURES)})
        work = Work(file, self._reference, self._inputs, timing, figures, parity=self._inputs[:1])
        answer = self._answer()
        # The dense model against itself says how this run measures, not how an earlier one did.
        keeps = self._kept if file != self._reference else None
        if keeps is not None and sample is None and (kept := keeps.get(work, answer.device)) is not None:
            return replace(answer, report=replace(kept, waited=0.0))
        measured = self.devices.measure(work if sample is None else replace(work, sample=sample.batches))
        check_parity(measured.parity[0], expected, "the device", self._rounding, self._than)
        if keeps is not None and measured.report is not None and not measured.report.disturbed:
            keeps.put(work, answer.device, measured.report)
        answer = replace(answer, report=measured.report)
        if measured.sample is None or sample is None:
            return answer
        outputs = [torch.from_numpy(x)[: length(sample.targets)] for x in measured.sample]
        return replace(answer, sample=(outputs, sample.targets))

    def predicted(self, prediction: Prediction) -> Answer:
        """A prediction for this device, as an answer."""
        return replace(self._answer(), prediction=prediction)

    def _answer(self) -> Answer:
        batch = len(self._inputs[0][0])
        return Answer(self.devices.fingerprint, self.devices.hello.machine.emulated, batch)
