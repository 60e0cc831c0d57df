"""Hardware works in blocks of channels: how wide they are on a device, measured there.

A kernel that computes 16 channels at a time takes as long for 18 as for 32. The multiple that belongs to a target is the period of
that staircase: of all periods, the one whose staircase explains the measured times best.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from secateur.agent.latency import Protocol
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.work import Work

PERIODS = (1, 2, 4, 8, 16, 32)
WIDTHS = tuple(range(2, 66, 2))
"""Channels of the layer between two others, in steps that tell the periods apart."""
NEIGHBOURS, PIXELS = 32, 16
"""Channels before and after it, and the side of its feature map: a middle layer of a small CNN."""
TIMING = Protocol(copies=2, rounds=4)


def channel_multiple(devices: Devices, batch: int, kept: Kept | None) -> int:
    """The channel multiple of a device with its runtime, which must read ONNX. Some 3 seconds on a desktop processor.

    Raises EvaluationFailed and DeviceLost.
    """
    return period(step_times(devices, batch, kept))


def step_times(devices: Devices, batch: int, kept: Kept | None) -> dict[int, float]:
    """Width → time of a small network whose middle layer is so wide, relative to the widest."""
    inputs = [(np.random.default_rng(0).normal(size=(batch, 3, PIXELS, PIXELS)).astype(np.float32),)]
    reference = _network(WIDTHS[-1])
    ratios = {}
    for width in WIDTHS:
        work = Work(_network(width), reference, inputs, TIMING)
        report = kept.get(work, devices.fingerprint) if kept is not None else None
        if report is None:
            report = devices.measure(work).report
            assert report is not None  # noqa: S101 # latency is asked for by default
            if kept is not None:
                kept.put(work, devices.fingerprint, report)
        ratios[width] = report.ratio
    return ratios


def period(times: Mapping[int, float]) -> int:
    """The period of the staircase `a + b·⌈width / period⌉` that fits best (least squares); of equals the smallest."""
    widths = np.array(sorted(times))
    values = np.array([times[width] for width in widths])
    errors = []
    for candidate in PERIODS:
        steps = np.stack([np.ones(len(widths)), np.ceil(widths / candidate) * candidate], axis=1)
        solution, *_ = np.linalg.lstsq(steps, values, rcond=None)
        errors.append(float(np.square(steps @ solution - values).sum()))
    return PERIODS[int(np.argmin(errors))]


def _network(width: int) -> bytes:
    """Three convolutions, the middle one `width` channels wide, as a serialised ONNX model."""
    rng = np.random.default_rng(0)
    channels = (3, NEIGHBOURS, width, NEIGHBOURS)
    nodes, weights, value = [], [], "input"
    for i, (before, after) in enumerate(pairwise(channels)):
        kernel = rng.normal(0, (before * 9) ** -0.5, (after, before, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        value = f"r{i}"
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, PIXELS, PIXELS])
    output = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", NEIGHBOURS, PIXELS, PIXELS])
    graph = helper.make_graph(nodes, "steps", [image], [output], weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    serialised: bytes = model.SerializeToString()
    return serialised
