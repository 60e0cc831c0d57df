"""Does the interval of a model against itself hold 1 as often as it says?

The embedded digits network and ResNet-20 (with trained weights where CIFAR10_WEIGHTS names a file, else random ones: latency does
not depend on them) are measured against themselves as a search measures a candidate and as a finalist is measured, without
waiting for a quiet device. Each repeat is a measuring process of its own. `--busy` starts processes that keep every core half busy.
Printed: the share of 95 % intervals that hold 1, with its own 95 % interval (Wilson), the median and the 90 % half width, the
spread of the ratios, and the seconds of a measurement.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import MODELS, arguments, table, write_json
from repeatability import load
from secateur.agent.latency import Protocol
from secateur.definition import EvaluatorDefinition
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.report import Report
from secateur.evaluators.devices.work import Work
from secateur.evaluators.measuring import SEARCH
from secateur.evaluators.onnx_export import export
from secateur.evaluators.paired import wilson
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.digits import residual_network
from secateur.workloads.resnet import cifar_resnet

PROTOCOLS = {"search": SEARCH, "finalist": Protocol()}


def networks() -> Iterator[tuple[str, bytes, torch.Tensor]]:
    """Name, file and one image."""
    torch.manual_seed(0)
    digits, image = residual_network().eval(), torch.randn(1, 1, 8, 8)
    yield "digits", export(digits, (image,)), image
    depth, variable = MODELS["resnet20"]
    model, image = cifar_resnet(depth).eval(), torch.randn(1, 3, 32, 32)
    if weights := os.environ.get(variable):
        load_weights(model, weights)
    yield "ResNet-20", export(model, (image,)), image


def measured(devices: Devices, file: bytes, image: torch.Tensor, protocol: Protocol) -> tuple[Report, float]:
    """One repeat, and its seconds. The agent measures in a new process each time."""
    started = time.perf_counter()
    report = devices.measure(Work(file, file, [(image.numpy(),)], protocol)).report
    assert report is not None  # noqa: S101 # latency is asked for by default
    return report, time.perf_counter() - started


def summary(repeats: list[tuple[Report, float]]) -> dict[str, Any]:
    """Of repeats of one network by one protocol."""
    reports = [report for report, _ in repeats]
    held = [report.interval[0] <= 1 <= report.interval[1] for report in reports]
    share = statistics.mean(held)
    halves = [math.log(report.interval[1] / report.interval[0]) / 2 for report in reports]
    ratios = [report.ratio for report in reports]
    return {
        "held": share,
        "held_interval": [wilson(share, len(held)).low, wilson(share, len(held)).high],
        "half_width": [statistics.median(halves), float(np.percentile(halves, 90))],
        "spread": statistics.pstdev(ratios),
        "disturbed": sum(report.disturbed for report in reports),
        "seconds": statistics.median(seconds for _, seconds in repeats),
        "ratios": ratios,
        "intervals": [report.interval for report in reports],
    }


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, metavar="N", help="of each network and protocol; 100, with --quick 20")
    parser.add_argument("--busy", action="store_true", help="with processes that keep every core half busy")
    options = parser.parse_args()
    repeats = options.repeats or (20 if options.quick else 100)
    cases = [(name, file, image, protocol) for name, file, image in networks() for protocol in PROTOCOLS]
    found: dict[str, list[tuple[Report, float]]] = {}
    devices = open_devices(EvaluatorDefinition(objectives={"latency": "minimize"}), Path.cwd())
    with closing(devices), load(os.cpu_count() or 1) if options.busy else nullcontext():
        for _ in range(repeats):  # in turn: all cases meet the same moods of the machine
            for name, file, image, protocol in cases:
                found.setdefault(f"{name}, {protocol}", []).append(measured(devices, file, image, PROTOCOLS[protocol]))
    figures = {case: summary(entries) for case, entries in found.items()}
    rows = []
    for case, entry in figures.items():
        low, high = entry["held_interval"]
        median, ninety = entry["half_width"]
        held = f"{entry['held']:.1%} ({low:.1%} to {high:.1%})"
        cells = [held, f"{median:.2%}", f"{ninety:.2%}", f"{entry['spread']:.2%}"]
        rows.append([case, *cells, f"{entry['disturbed']}", f"{entry['seconds']:.2f}"])
    columns = ("network, protocol", "intervals that hold 1", "half width", "90 %", "ratios' s. d.", "disturbed", "s")
    table(f"{repeats} repeats, {'busy' if options.busy else 'as the machine is'}", columns, rows)
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
