"""How well does a latency ratio repeat, over fresh processes and under a background load?

Each repeat is a fresh measuring process on this host (`device: local`), which may wait for quiet as a finalist may, and beside
it a fresh process that takes the plain mean of 100 runs of each model. The load keeps every core busy half of the time.
Printed: the spread of each ratio over the repeats, (largest - smallest) over the median, the seconds of one measurement, and
the pushes and processes of 50 measurements in a row.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from common import arguments, table, write_json
from secateur.agent.latency import Protocol
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.definition import EvaluatorDefinition
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.work import Work
from secateur.evaluators.onnx_export import export
from secateur.evaluators.waiting import FINALIST
from secateur.workloads.resnet import cifar_resnet

LOAD = """
import random, time
while True:
    end = time.perf_counter() + 0.04 * random.random()
    while time.perf_counter() < end:
        pass
    time.sleep(0.04 * random.random())
"""
"""Busy for up to 40 ms, then idle for as long."""
PLAIN = """
import sys, time, numpy, onnxruntime
def mean(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    x = {session.get_inputs()[0].name: numpy.load(sys.argv[3])}
    session.run(None, x)
    started = time.perf_counter()
    for _ in range(100):
        session.run(None, x)
    return time.perf_counter() - started
print(mean(sys.argv[1]) / mean(sys.argv[2]))
"""
"""What many do: 100 runs of one model, 100 runs of the other, the quotient of the means."""


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that keep a core half busy."""
    running = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def models() -> tuple[bytes, bytes, torch.Tensor]:
    """ResNet-20 with half of each inner layer's channels gone, ResNet-20, and an image; latency does not depend on weights."""
    torch.manual_seed(0)
    dense, image = cifar_resnet(20).eval(), torch.randn(1, 3, 32, 32)
    inner = [g for g in find_groups(dense, (image,)).groups if ".conv1" in g.name]
    smaller = apply(dense, without(inner, {g.name: g.removable[: g.width // 2] for g in inner}))
    return export(smaller, (image,)), export(dense, (image,)), image


def spread(ratios: list[float]) -> float:
    """Of repeats, relative to their median."""
    return (max(ratios) - min(ratios)) / statistics.median(ratios)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__).parse_args()
    repeats = 3 if options.quick else 10
    candidate, reference, image = models()
    definition = EvaluatorDefinition(objectives={"latency": "minimize"})
    work = Work(candidate, reference, [(image.numpy(),)], Protocol(allowance=FINALIST))
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("candidate.onnx", "reference.onnx", "image.npy")]
        paths[0].write_bytes(candidate)
        paths[1].write_bytes(reference)
        import numpy as np

        np.save(paths[2], image.numpy())
        for name, processes in (("idle", 0), ("busy", os.cpu_count() or 1)):
            ours, plain, seconds = [], [], []
            with load(processes):
                for _ in range(repeats):  # alternately: both meet the same moods of the machine
                    devices = open_devices(definition, Path(folder))
                    _ = devices.fingerprint  # the process is up
                    started = time.perf_counter()
                    report = devices.measure(work).report
                    seconds.append(time.perf_counter() - started)
                    devices.close()
                    assert report is not None  # noqa: S101 # latency is asked for by default
                    ours.append(report.ratio)
                    command = [sys.executable, "-c", PLAIN, *map(str, paths)]
                    plain.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            for label, ratios in (("secateur", ours), ("plain mean of 100", plain)):
                cost = f"{statistics.median(seconds):.2f} ({max(seconds):.2f})" if label == "secateur" else ""
                rows.append([f"{name}: {label}", f"{statistics.median(ratios):.4f}", f"{spread(ratios):.2%}", cost])
                figures[f"{name}/{label}"] = {"ratios": ratios, "spread": spread(ratios)}
            figures[f"{name}/seconds"] = seconds
    table(f"{repeats} fresh processes", ("machine and method", "ratio", "spread", "s, median (most)"), rows)
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
