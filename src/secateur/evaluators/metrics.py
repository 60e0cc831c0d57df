"""One function per metric, in an open registry. A metric sees everything that one evaluation found and returns one figure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from secateur.compression.costs import parameter_count
from secateur.errors import EvaluationFailed, WorkloadError
from secateur.evaluators.devices.report import Report
from secateur.evaluators.model_files import Network
from secateur.evaluators.on_device import Answer
from secateur.evaluators.paired import interval
from secateur.evaluators.sample_scores import RESAMPLES, Scores, scores_of
from secateur.plugins import Registry
from secateur.records import SHARE, Direction, Measurement, Provenance, Workload
from secateur.workloads.calls import guarded
from secateur.workloads.pytrees import PyTree, filled, length


@dataclass(frozen=True)
class Context:
    """What a metric may look at.

    outputs: of the exported model on the samples of one data role, nested as the torch module's are, each tensor (n, …);
    dense_outputs: the dense model's on the same; targets: (n, …). host: fingerprint of what these came from. device: what the
    device said, None where it was not asked. resamples: see `scores_of`.
    """

    workload: Workload
    network: Network
    outputs: PyTree
    dense_outputs: PyTree
    targets: PyTree
    host: str
    device: Answer | None
    resamples: int = RESAMPLES

    @cached_property
    def scores(self) -> Scores:
        """What the outputs score, sample by sample or in resamples. Raises WorkloadError."""
        return scores_of(self.workload, self.outputs, self.targets, self.resamples)


@dataclass(frozen=True)
class Metric:
    """A metric: its function, which way is better, and one line for people."""

    measure: Callable[[Context], Measurement]
    direction: Direction
    summary: str


def accuracy(context: Context) -> Measurement:
    """The workload's score of the exported model, with its interval (`secateur.evaluators.paired`) where that is known."""
    scores = context.scores
    bounds: tuple[float, float] | None = None
    with contextlib.suppress(EvaluationFailed):  # one sample, or resamples without a score
        own = interval(scores)
        share = context.workload.score_unit == SHARE  # Student's t knows of no ends
        bounds = (max(0.0, own.low), min(1.0, own.high)) if share else (own.low, own.high)
    return Measurement(scores.value, "score", "measured", scores.samples, bounds, context.host)


def latency(context: Context) -> Measurement:
    """Time of one run as a ratio to the dense model's, measured alternately. Milliseconds are in the details."""
    return latency_in(context.device)


def latency_in(answer: Answer | None) -> Measurement:
    """The same, of what a device has said. Raises EvaluationFailed where it said nothing of it."""
    if answer is not None and answer.report is None and answer.prediction is not None:
        prediction = answer.prediction
        return Measurement(
            prediction.ratio, "of dense", "predicted", interval=prediction.interval, device=answer.device
        )
    report = _report(answer, "latency")
    details = {
        "min_ms": report.candidate_ms.min,
        "p50_ms": report.candidate_ms.p50,
        "p90_ms": report.candidate_ms.p90,
        "dense_min_ms": report.reference_ms.min,
        "dense_p50_ms": report.reference_ms.p50,
        "drift": report.drift,
        "disturbed": float(report.disturbed),
        "waited_s": report.waited,
        "copies": float(report.copies),
        "throttled": float(report.throttled),
        "temperature_c": report.after.temperature_c,
        "frequency_mhz": report.after.frequency_mhz,
    }
    if answer is not None and answer.prediction is not None:
        low, high = answer.prediction.interval
        details |= {"predicted_ratio": answer.prediction.ratio, "predicted_low": low, "predicted_high": high}
    provenance, device = _origin(answer)
    return Measurement(
        report.ratio,
        "of dense",
        provenance,
        report.rounds,
        report.interval,
        device,
        {name: value for name, value in details.items() if value is not None},
    )


def throughput(context: Context) -> Measurement:
    """Samples a second at the declared batch, from the median run."""
    report = _report(context.device, "throughput")
    assert context.device is not None  # noqa: S101 # it has a report
    rate = context.device.batch / report.candidate_ms.p50 * 1e3
    return _measured(context.device, rate, "samples/s", report.rounds)


def memory(context: Context) -> Measurement:
    """Bytes by which a process that opens the model and runs it grows at its peak. Good to some 2 to 4 %."""
    report = _report(context.device, "memory")
    if report.candidate_memory_bytes is None:
        raise EvaluationFailed("memory was not measured")
    return _measured(context.device, float(report.candidate_memory_bytes), "bytes", 1)


def energy(context: Context) -> Measurement:
    """Millijoules of one run, everything that the device's meter sees included."""
    report = _report(context.device, "energy")
    if report.energy_mj is None:
        raise EvaluationFailed("energy was not measured")
    return _measured(context.device, report.energy_mj, "mJ", 1)


def device_accuracy(context: Context) -> Measurement:
    """The workload's score of the device's own outputs, on `device_samples` samples of the data role in question."""
    answer = context.device
    if answer is None or answer.sample is None:
        raise EvaluationFailed("the device was not given samples to score")
    outputs, targets = answer.sample
    scored = replace(context, outputs=filled(context.dense_outputs, outputs), targets=targets, host=answer.device)
    return accuracy(scored)


def _report(answer: Answer | None, figure: str) -> Report:
    if answer is None or answer.report is None:
        raise EvaluationFailed(f"{figure} was not measured")
    return answer.report


def _origin(answer: Answer | None) -> tuple[Provenance, str | None]:
    """Where a device's figures come from."""
    if answer is None:
        return "computed", None
    return ("emulated" if answer.emulated else "measured"), answer.device


def _measured(answer: Answer | None, value: float, unit: str, samples: int) -> Measurement:
    provenance, device = _origin(answer)
    return Measurement(value, unit, provenance, samples, device=device)


def size(context: Context) -> Measurement:
    """Bytes of the model's file as shipped."""
    return Measurement(float(len(context.network.file)), "bytes", "computed")


def download(context: Context) -> Measurement:
    """Bytes of the model's file as shipped, compressed by zstd at level 3: what zeros gain on every device."""
    return Measurement(float(context.network.download), "bytes", "computed")


def macs(context: Context) -> Measurement:
    """Multiply-accumulates for one sample."""
    return Measurement(float(context.network.macs), "MACs", "computed")


def parameters(context: Context) -> Measurement:
    """Elements of all parameters."""
    return Measurement(float(parameter_count(context.network.module)), "parameters", "computed")


def nonzero(context: Context) -> Measurement:
    """Elements of all parameters that are not exactly zero."""
    count = sum(int(parameter.count_nonzero()) for parameter in context.network.module.parameters())
    return Measurement(float(count), "parameters", "computed")


def damage(context: Context) -> Measurement:
    """Squared error of the workload's `output` against the dense model's, relative to the spread of the latter; 0 is undamaged."""
    output = context.workload.output
    error = relative_error(output(context.outputs), output(context.dense_outputs))
    return Measurement(error, "relative squared error", "measured", length(context.targets), None, context.host)


def relative_error(outputs: Tensor, dense: Tensor) -> float:
    """Squared error of outputs (n, …) against the dense model's, over the squared spread of the latter about their mean."""
    spread = (dense - dense.mean(0)).square().sum().clamp_min(1e-12)
    return float((outputs - dense).square().sum() / spread)


METRICS: Registry[Metric] = Registry(
    "secateur.metrics",
    Metric,
    {
        "accuracy": Metric(accuracy, "maximize", "the workload's score of the exported model"),
        "latency": Metric(latency, "minimize", "time of one run, as a ratio to the dense model's, on the device"),
        "throughput": Metric(throughput, "maximize", "samples a second on the device, at the declared batch"),
        "memory": Metric(
            memory, "minimize", "bytes that opening and running the model takes on the device, at the peak"
        ),
        "energy": Metric(energy, "minimize", "millijoules of one run on the device, by RAPL or a command of yours"),
        "device_accuracy": Metric(
            device_accuracy, "maximize", "the workload's score of the device's own outputs, on a small sample"
        ),
        "size": Metric(size, "minimize", "bytes of the exported model as shipped"),
        "download": Metric(download, "minimize", "bytes of the exported model as shipped, compressed by zstd"),
        "macs": Metric(macs, "minimize", "multiply-accumulates for one sample"),
        "parameters": Metric(parameters, "minimize", "elements of all parameters"),
        "nonzero": Metric(nonzero, "minimize", "elements of all parameters that are not zero"),
        "damage": Metric(damage, "minimize", "squared error of the outputs against the dense model's"),
    },
)
"""The registry (see `secateur.plugins`). A project adds its own under `metrics:` in its evaluator."""


def measure_all(context: Context, names: Sequence[str], registry: Mapping[str, Metric]) -> dict[str, Measurement]:
    """The named metrics. Raises EvaluationFailed where one of them is not finite."""
    figures = {}
    for name in names:
        metric = registry[name]
        ours = getattr(metric.measure, "__module__", None) == __name__  # not a project's or a plug-in's
        measure = metric.measure if ours else guarded(metric.measure, f"The metric '{name}'")
        figures[name] = measure(context)
        if not isinstance(figures[name], Measurement):
            raise WorkloadError(f"The metric '{name}' gives a {type(figures[name]).__name__}; a Measurement is needed.")
        if not np.isfinite(figures[name].value):
            raise EvaluationFailed(f"{name} is {figures[name].value}")
    return figures
