"""What does one measurement cost, on this host or on a board?

Fifty networks cut from ResNet-20 (untrained: latency does not depend on weights) are pushed and measured one after the other
through one connection, as a search does it: six copies, two rounds each, outputs compared. Printed: the seconds to reach the
device and start the measuring program there, twice (the first time it may have to be pushed), and those of one measurement,
push included.

`--device raspberry_pi` takes an evaluator's name or file, as `secateur device check` does.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from common import arguments, table, write_json
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.work import Work
from secateur.evaluators.measuring import SEARCH
from secateur.evaluators.onnx_template import make_template
from secateur.pipelines.devices import evaluator_named
from secateur.workloads.resnet import cifar_resnet


def networks(count: int) -> tuple[bytes, list[bytes]]:
    """The dense file, and so many others."""
    torch.manual_seed(0)
    dense, image = cifar_resnet(20).eval(), torch.randn(1, 3, 32, 32)
    groups = find_groups(dense, (image,)).groups
    template, rng = make_template(dense, (image,)), np.random.default_rng(0)
    files = []
    for _ in range(count):
        gone = {g.name: g.removable[: int(rng.integers(0, g.width - 7))] for g in groups}
        files.append(template.render(apply(dense, without(groups, gone))))
    return template.dense, files


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--device", default="local", metavar="NAME", help="local, or an evaluator's name or file")
    options = parser.parse_args()
    definition, root = evaluator_named(options.device)
    reference, files = networks(10 if options.quick else 50)
    inputs = [(np.random.default_rng(n).normal(size=(1, 3, 32, 32)).astype(np.float32),) for n in range(4)]
    reached = []
    for _ in range(2):
        devices = open_devices(definition, root)
        started = time.perf_counter()
        fingerprint = devices.fingerprint
        reached.append(time.perf_counter() - started)
        seconds = []
        for file in files:
            started = time.perf_counter()
            devices.measure(Work(file, reference, inputs, SEARCH, parity=inputs[:1]))
            seconds.append(time.perf_counter() - started)
        devices.close()
    rows = [[name, f"{reached[i]:.2f}", "", ""] for i, name in enumerate(("reaching it", "reaching it again"))]
    ninety = float(np.percentile(seconds, 90))
    rows.append(["one measurement", f"{statistics.median(seconds):.2f}", f"{ninety:.2f}", f"{max(seconds):.2f}"])
    table(f"{fingerprint}: {len(files)} networks", ("seconds", "median", "90 %", "most"), rows)
    write_json(options.json, {"device": fingerprint, "reached": reached, "seconds": seconds})


if __name__ == "__main__":
    main()
