"""One function per metric, in an open registry. A metric sees everything that one evaluation found and returns one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from secateur.compression.costs import parameter_count
from secateur.errors import EvaluationFailed
from secateur.evaluators.latency import Comparison
from secateur.records import Direction, Measurement, Workload


@dataclass(frozen=True)
class Context:
    """What a metric may look at.

    outputs: (n, …) of the exported model on the samples of one data role; dense_outputs: the dense model's on the same;
    targets: (n, …). comparison: timed runs against the dense model, None where latency is not asked for. onnx: the file as
    shipped. module: the same network in torch. macs: for one sample. device: fingerprint.
    """

    workload: Workload
    outputs: Tensor
    dense_outputs: Tensor
    targets: Tensor
    comparison: Comparison | None
    onnx: bytes
    module: nn.Module
    macs: int
    device: str


@dataclass(frozen=True)
class Metric:
    """A metric: its function, which way is better, and one line for people."""

    measure: Callable[[Context], Measurement]
    direction: Direction
    summary: str


def accuracy(context: Context) -> Measurement:
    """The workload's score of the exported model. Interval: Wilson for 0/1 scores, else normal; for a scalar score bootstrap."""
    scores = context.workload.score(context.outputs, context.targets).float()
    count = len(context.targets)
    if scores.dim() == 0:
        return Measurement(float(scores), "score", "measured", count, _bootstrap(context), context.device)
    value = float(scores.mean())
    if bool(((scores == 0) | (scores == 1)).all()):
        interval = wilson(value, count)
    else:
        half = 1.96 * float(scores.std(unbiased=False)) / count**0.5
        interval = (value - half, value + half)
    return Measurement(value, "score", "measured", count, interval, context.device)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927; never leaves [0, 1]."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _bootstrap(context: Context, resamples: int = 200) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    count = len(context.targets)
    drawn = [torch.from_numpy(rng.integers(0, count, count)) for _ in range(resamples)]
    values = [float(context.workload.score(context.outputs[i], context.targets[i])) for i in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def latency(context: Context) -> Measurement:
    """Time of one run as a ratio to the dense model's, measured alternately. Milliseconds are in the details."""
    comparison = context.comparison
    if comparison is None:
        raise EvaluationFailed("latency was not measured")
    milliseconds = comparison.runs * 1e3
    reference = comparison.reference_runs * 1e3
    return Measurement(
        comparison.ratio,
        "of dense",
        "measured",
        comparison.rounds,
        comparison.interval,
        context.device,
        {
            "min_ms": float(milliseconds.min()),
            "p50_ms": float(np.median(milliseconds)),
            "p90_ms": float(np.percentile(milliseconds, 90)),
            "dense_min_ms": float(reference.min()),
            "dense_p50_ms": float(np.median(reference)),
        },
    )


def size(context: Context) -> Measurement:
    """Bytes of the ONNX file as shipped."""
    return Measurement(float(len(context.onnx)), "bytes", "computed")


def macs(context: Context) -> Measurement:
    """Multiply-accumulates for one sample."""
    return Measurement(float(context.macs), "MACs", "computed")


def parameters(context: Context) -> Measurement:
    """Elements of all parameters."""
    return Measurement(float(parameter_count(context.module)), "parameters", "computed")


def damage(context: Context) -> Measurement:
    """Squared error of the outputs against the dense model's, relative to the spread of the dense outputs; 0 is undamaged."""
    error = relative_error(context.outputs, context.dense_outputs)
    return Measurement(error, "relative squared error", "measured", len(context.targets), None, context.device)


def relative_error(outputs: Tensor, dense: Tensor) -> float:
    """Squared error of outputs (n, …) against the dense model's, over the squared spread of the latter about their mean."""
    spread = (dense - dense.mean(0)).square().sum().clamp_min(1e-12)
    return float((outputs - dense).square().sum() / spread)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, "maximize", "the workload's score of the exported model"),
    "latency": Metric(latency, "minimize", "time of one run, as a ratio to the dense model's, on the device"),
    "size": Metric(size, "minimize", "bytes of the exported model as shipped"),
    "macs": Metric(macs, "minimize", "multiply-accumulates for one sample"),
    "parameters": Metric(parameters, "minimize", "elements of all parameters"),
    "damage": Metric(damage, "minimize", "squared error of the outputs against the dense model's"),
}
"""The registry. A project adds its own under `metrics:` in its evaluator."""


def measure_all(context: Context, names: list[str], registry: Mapping[str, Metric]) -> dict[str, Measurement]:
    """The named metrics. Raises EvaluationFailed where one of them is not finite."""
    found = {}
    for name in names:
        found[name] = registry[name].measure(context)
        if not np.isfinite(found[name].value):
            raise EvaluationFailed(f"{name} is {found[name].value}")
    return found
