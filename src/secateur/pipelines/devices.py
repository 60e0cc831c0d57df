"""`secateur device check` and `secateur measure`: a device proven, and a model measured there, without a pipeline around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from secateur.agent.latency import Protocol
from secateur.agent.machine import Machine
from secateur.agent.runtimes import RUNTIMES
from secateur.definition import EvaluatorDefinition, load_evaluator
from secateur.errors import ModelError
from secateur.evaluators.channel_steps import channel_multiple
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.report import Report
from secateur.evaluators.devices.work import Batches, Work
from secateur.evaluators.formats import ONNX, convert
from secateur.evaluators.onnx_export import export
from secateur.evaluators.onnx_inputs import random_inputs
from secateur.evaluators.parity import check_parity
from secateur.evaluators.runtimes import host_for
from secateur.pipelines.limits import check_batch, check_threads, meter_needed
from secateur.pipelines.names import check_runtime
from secateur.workloads.resnet import ResNet

LOCAL = "local"
"""The one device that needs no file in evaluators/."""
REPEATS = 5
"""A/A measurements of a check."""


@dataclass(frozen=True)
class DeviceChecked:
    """One device that has proven itself.

    ratios: of a model against itself. channel_multiple: steps in which it gets faster; None where its runtime reads no ONNX.
    """

    name: str
    fingerprint: str
    machine: Machine
    report: Report
    ratios: tuple[float, ...]
    channel_multiple: int | None

    @property
    def noise(self) -> float:
        """The largest distance of an A/A ratio from 1."""
        return max(abs(ratio - 1) for ratio in self.ratios)


@dataclass(frozen=True)
class ModelMeasured:
    """A model on a device. against: name of the reference, None where it was timed against itself. batch: samples per run."""

    model: str
    against: str | None
    fingerprint: str
    emulated: bool
    batch: int
    report: Report


def evaluator_named(name: str, project: Path | None = None) -> tuple[EvaluatorDefinition, Path]:
    """The evaluator that names a device, and its project's root: `local`, a name in evaluators/, or a path.

    Raises DefinitionError.
    """
    if name == LOCAL:
        return EvaluatorDefinition(objectives={"latency": "minimize"}), Path.cwd()
    definition, root = load_evaluator(name, project)
    check_runtime(definition)
    return definition, root


def check_devices(name: str, project: Path | None = None) -> Iterator[DeviceChecked]:
    """Prove each device that an evaluator names: reach it, start the runtime there, measure a small network against itself.

    Raises DeviceLost and DeviceRefused, which say what is wrong; EvaluationFailed where the outputs there are not torch's.
    """
    definition, root = evaluator_named(name, project)
    check_batch(definition, [torch.zeros(1, 3, 32, 32)])
    model = _small_network()
    images = torch.randn(definition.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # CIFAR's size
    runtime = RUNTIMES[definition.runtime]
    reads_onnx = runtime.format == ONNX
    file = export(model, (images,)) if reads_onnx else convert(runtime.format, model, (images,))
    figures = frozenset({"latency", "memory"} if runtime.in_process else {"latency"})
    rounding = runtime.rounding(definition.runtime_options)
    with torch.no_grad():
        expected = model(images)
    inputs = [(images.numpy(),)]
    with _opened(definition, root) as devices:
        check_threads(definition, devices.hello.machine.cores, "the device")
        multiple = channel_multiple(devices, definition.batch, None) if reads_onnx else None
        for device in devices.each:
            reports = []
            for _ in range(REPEATS):
                answer = device.measure(Work(file, file, inputs, Protocol(), figures, inputs))
                check_parity(answer.parity[0], expected, device.name, rounding)
                assert answer.report is not None  # noqa: S101 # latency was asked for
                reports.append(answer.report)
            ratios = tuple(report.ratio for report in reports)
            yield DeviceChecked(device.name, device.fingerprint, device.hello.machine, reports[-1], ratios, multiple)


def measure_file(model: Path, name: str, against: Path | None, project: Path | None = None) -> ModelMeasured:
    """Measure an exported model on a named device. against: the reference of the ratio; without it there is no ratio to speak of.

    Raises ModelError for a file that cannot be used, and what `check_devices` raises.
    """
    definition, root = evaluator_named(name, project)
    runtime = RUNTIMES[definition.runtime]
    if runtime.format != ONNX:
        raise ModelError(
            f"{definition.runtime} reads {runtime.format}; only devices whose runtime reads ONNX measure a file alone."
        )
    content, inputs = _readable(model, definition.batch)
    reference, others = (content, inputs) if against is None else _readable(against, definition.batch)
    if [(x.shape, x.dtype) for x in inputs[0]] != [(x.shape, x.dtype) for x in others[0]]:
        raise ModelError(f"{against} takes other inputs than {model}: only models that take the same are compared.")
    expected = _outputs(content, inputs, definition.threads, model)
    figures = {"latency", "memory"} if runtime.in_process else {"latency"}
    with _opened(definition, root) as devices:
        if runtime.in_process and (definition.energy_command is not None or devices.hello.energy):
            figures.add("energy")
        check_threads(definition, devices.hello.machine.cores, "the device")
        with meter_needed(definition):
            answer = devices.measure(Work(content, reference, inputs, Protocol(), frozenset(figures), inputs))
        check_parity(answer.parity[0], expected, "the device", runtime.rounding(definition.runtime_options))
        assert answer.report is not None  # noqa: S101 # latency was asked for
        return ModelMeasured(
            str(model),
            str(against) if against else None,
            devices.fingerprint,
            devices.hello.machine.emulated,
            definition.batch,
            answer.report,
        )


@contextmanager
def _opened(definition: EvaluatorDefinition, root: Path) -> Iterator[Devices]:
    devices = open_devices(definition, root)
    try:
        yield devices
    finally:
        devices.close()


def _small_network() -> torch.nn.Module:
    """A small residual network with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet((16, 32), 2, classes=10, padded_shortcut=False).eval()


def _readable(file: Path, batch: int) -> tuple[bytes, Batches]:
    """A model's content and inputs for it. Raises ModelError where it cannot be measured."""
    content = _read(file)
    return content, random_inputs(content, batch, 1, str(file))


def _outputs(content: bytes, inputs: Batches, threads: int, file: Path) -> list[torch.Tensor]:
    """What the device must say, too: the outputs on this host. Raises ModelError and EvaluationFailed."""
    outputs = host_for("onnxruntime", {}, threads).open(content).run(inputs[0])
    for number, output in enumerate(outputs):
        if output.dtype.kind not in "biuf":
            raise ModelError(
                f"{file}: its output {number} is no tensor of numbers, so the device's outputs cannot be checked."
            )
        if not np.isfinite(output).all():
            raise ModelError(f"{file}: its outputs on random inputs are not finite, so the device's cannot be checked.")
    return [torch.from_numpy(output) for output in outputs]


def _read(file: Path) -> bytes:
    if file.exists() and not file.is_file():
        raise ModelError(f"{file} is no file: name an exported .onnx file.")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from error
