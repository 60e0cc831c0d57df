"""Operators timed one by one on a device: a table, and between its entries curves.

A model of one operator is made for each and measured on the device itself. Source: the table of operators of ProxylessNAS (Cai et
al. 2019, arXiv:1812.00332); we fuse before we time, and interpolate what was not measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from secateur.agent.latency import Protocol
from secateur.errors import EvaluationFailed
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.work import Work
from secateur.evaluators.onnx_inputs import random_inputs
from secateur.evaluators.operators import PREVIOUS, Operator

Array = NDArray[np.float64]

MULTIPLES = (4, 8, 16, 32)
"""Channels that hardware may compute at a time: what operators that were not measured are interpolated with."""
LEAST_SHARE = 0.05
"""Of an operator's own time, that is left when the price of a run is taken off: noise must not make it free."""
TIMING = Protocol(copies=2, rounds=4)


@dataclass(frozen=True)
class Table:
    """Operators on one device. seconds: by key. curves: coefficients of `_features`, by kind; under "" those of all kinds."""

    seconds: Mapping[str, float]
    curves: Mapping[str, tuple[float, ...]]

    def time(self, operator: Operator) -> float:
        """Seconds of an operator inside a network: measured alone, or interpolated between others of its kind."""
        if operator.key in self.seconds:
            return self.seconds[operator.key]
        return float(np.dot(self.curves.get(operator.kind, self.curves[""]), _features(operator)))


def table_of(
    operators: Iterable[Operator],
    measure: Callable[[list[bytes]], Sequence[float]],
    most: int = 192,
    passes: int = 2,
) -> Table:
    """Time operators one by one on the device.

    operators: of many candidates, one after the other: where there are more than `most` different ones, at least one of each kind
    is measured and then those that occur most often. measure: serialised ONNX models → seconds of one run of each, measured anew,
    NaN for what does not run alone. It is called so often as there are passes, and the smallest figure counts: what disturbs a
    run of microseconds rarely comes back a minute later. Models come in a shuffled order, so that a device that slows down does
    not look like one that dislikes wide layers. One of them does nothing: its time, the price of any run, is taken off.

    Raises EvaluationFailed where nothing could be measured.
    """
    chosen = _chosen(operators, most)
    models = [*(one_operator_model(operator) for operator in chosen), idle_model()]
    times = np.full(len(models), np.inf)
    for number in range(passes):
        order = np.random.default_rng(number).permutation(len(models))
        times[order] = np.fmin(times[order], measure([models[i] for i in order]))
    idle = times[-1] if np.isfinite(times[-1]) else 0.0
    measured = {
        operator.key: float(max(time - idle, LEAST_SHARE * time))
        for operator, time in zip(chosen, times[:-1], strict=True)
        if np.isfinite(time)
    }
    if not measured:
        raise EvaluationFailed(f"none of {len(chosen)} operators could be timed alone on the device")
    timed = [operator for operator in chosen if operator.key in measured]
    curves = {"": _curve(timed, measured)}
    for kind in dict.fromkeys(operator.kind for operator in timed):
        curves[kind] = _curve([operator for operator in timed if operator.kind == kind], measured)
    return Table(measured, curves)


def measured_alone(devices: Devices, batch: int) -> Callable[[list[bytes]], list[float]]:
    """A `measure` for `table_of` on real devices: every model against itself, so that each figure is the least of both sides.

    batch: samples per run. Raises DeviceLost where they are gone.
    """

    def seconds(model: bytes) -> float:
        try:
            report = devices.measure(Work(model, model, random_inputs(model, batch, 1), TIMING)).report
        except EvaluationFailed:
            return float("nan")
        assert report is not None  # noqa: S101 # latency is asked for by default
        return min(report.candidate_ms.min, report.reference_ms.min) / 1e3

    return lambda models: [seconds(model) for model in models]


def _chosen(operators: Iterable[Operator], most: int) -> list[Operator]:
    """Different operators: the most used one of each kind, then the most used."""
    occurring = Counter[str]()
    known: dict[str, Operator] = {}
    for operator in operators:
        occurring[operator.key] += 1
        known.setdefault(operator.key, operator)
    by_use = [known[key] for key, _ in occurring.most_common()]
    firsts = {operator.kind: operator for operator in reversed(by_use)}
    return list(dict.fromkeys([*firsts.values(), *by_use]))[: max(most, len(firsts))]


def _features(operator: Operator) -> Array:
    """What an operator's time may be made of: a constant, data, weights, and MACs with channels rounded up to whole vectors."""
    out, into, times = operator.product
    rounded = [(-(-out // m) * m * times, -(-into // m) * m) for m in MULTIPLES]
    macs = [out * into * times, *(o * into for o, _ in rounded), *(o * i for o, i in rounded)]
    return np.array([1, operator.moved, operator.weights, *macs], dtype=np.float64)


def _curve(operators: Sequence[Operator], seconds: Mapping[str, float]) -> tuple[float, ...]:
    """Non-negative coefficients of `_features`: the least sum of squared relative errors."""
    from scipy.optimize import nnls  # slow to import

    features = np.array([_features(operator) for operator in operators])
    times = np.array([seconds[operator.key] for operator in operators])
    scale = np.maximum(features.max(axis=0), 1)  # counts of very different sizes
    coefficients, _ = nnls(features / scale / times[:, None], np.ones(len(times)))
    return tuple((coefficients / scale).tolist())


def one_operator_model(operator: Operator) -> bytes:
    """A serialised ONNX model of this operator alone, with invented weights. Its inputs are the operator's, in order."""
    rng = np.random.default_rng(0)
    inputs, stored = [], []
    names = [f"v{position}" for position in range(len(operator.values))]
    for name, value in zip(names, operator.values, strict=True):
        if value.content:
            constant = TensorProto.FromString(value.content)
            constant.name = name
            stored.append(constant)
        elif value.constant:
            invented = rng.uniform(0.01, 0.1, value.shape)  # positive: some are variances
            stored.append(numpy_helper.from_array(invented.astype(helper.tensor_dtype_to_np_dtype(value.type)), name))
        else:
            inputs.append(helper.make_tensor_value_info(name, value.type, value.shape))
    nodes = []
    for number, step in enumerate(operator.steps):
        reads = ["" if p is None else f"s{number - 1}" if p == PREVIOUS else names[p] for p in step.reads]
        node = helper.make_node(step.type, reads, [f"s{number}"], domain=step.domain)
        node.attribute.extend(onnx.AttributeProto.FromString(attribute) for attribute in step.attributes)
        nodes.append(node)
    last = operator.steps[-1]
    output = helper.make_tensor_value_info(nodes[-1].output[0], last.output_type, last.shape)
    return _model(helper.make_graph(nodes, "operator", inputs, [output], stored), operator.opsets)


def idle_model() -> bytes:
    """A serialised ONNX model that does next to nothing: what a run costs however little there is to do."""
    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v0", "s0")]
    graph = helper.make_graph([helper.make_node("Neg", ["v0"], ["s0"])], "idle", one[:1], one[1:])
    return _model(graph, (("", 18),))


def _model(graph: onnx.GraphProto, opsets: tuple[tuple[str, int], ...]) -> bytes:
    named = [helper.make_opsetid(domain, version) for domain, version in opsets]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=named, ir_version=10)
    serialised: bytes = model.SerializeToString()
    return serialised
