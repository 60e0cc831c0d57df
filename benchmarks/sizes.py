"""What networks of real size cost: their groups, the first candidate, every further one, and memory. Random weights and data.

- groups: found and proven, in CPU-seconds of a bare forward pass of one sample in torch; and samples that ran through the model.
- scores of single weights (`--criterion`, and then nothing else behind the groups): in the same unit, on `SCORED` calibration
  samples and without Gram matrices. More samples take longer, and no more memory.
- preparation: what comes before the first candidate (Gram matrices, saliency, the export), in the same unit.
- candidate: cut, repaired, written, checked and scored, over a bare ONNX Runtime pass of the same samples with its own file; the
  part that repairs it, over the same. Latency is left out: its price is fixed by the protocol (`measurement.py`).
- memory: peak of the resident set beyond the framework (torch with its exporter and ONNX Runtime, loaded by a small network), in
  sizes of the weights.

One thread. `--quick` takes a quarter of the size and few samples.
"""

# ruff: noqa: E402
from __future__ import annotations

from secateur.torch_environment import choose

choose()  # as the command does, before torch is loaded

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch._dynamo  # counting MACs loads it, seconds of its own
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.data import Dataset, Subset

from candidate_cost import bare
from common import arguments, table, write_json
from large_nets import NETS, LargeNet
from secateur.compression.compensation.gram import grams_of
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.compression.groups import FoundGroups, find_groups
from secateur.compression.resolution import resolve
from secateur.compression.saliency import compute_saliencies
from secateur.compression.tensor_files import TensorFile
from secateur.compression.weight_saliency import weight_saliencies
from secateur.definition import EvaluatorDefinition, GroupRule, SearchSpaceDefinition
from secateur.evaluators import DenseModel, Evaluator, Place
from secateur.evaluators.devices import open_devices
from secateur.evaluators.onnx_export import export
from secateur.evaluators.runtimes import host_for
from secateur.memory import give_back
from secateur.records import DataRoles, Job, Workload
from secateur.search_spaces import build_space

T = TypeVar("T")
FRACTION = 0.25
"""Of the channels of every group that the candidate loses."""
SCORED = 8
"""Samples for the scores of single weights: more than run at once."""


class Invented(Dataset[tuple[Tensor, int]]):
    """Samples that are made when they are asked for, the same ones every time, with labels."""

    def __init__(self, net: LargeNet, size: int, count: int, seed: int) -> None:
        self.net, self.size, self.count, self.seed = net, size, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed * 1_000_003 + number)
            return self.net.example(1, self.size)[0], number % 2


def workload_of(net: LargeNet, model: nn.Module, size: int, samples: int) -> Workload:
    """The network with invented data."""
    roles = (Invented(net, size, count, seed) for seed, count in enumerate((64, 256, samples, 64, 64)))
    return Workload(
        name=type(model).__name__,
        build_model=lambda: model,
        example_inputs=(net.example(1, size),),
        data=DataRoles(*roles),
        loss=torch.nn.functional.cross_entropy,
        score=lambda outputs, targets: (outputs.argmax(1) == targets).float(),
    )


class Meter:
    """CPU-seconds, peak memory and samples through the model, step by step."""

    def __init__(self, model: nn.Module, weights: int) -> None:
        self.weights, self.samples = weights, 0
        host_for("onnxruntime", {}, 1).open(export(nn.Linear(1, 1), (torch.zeros(1, 1),)))
        self.base = memory("VmRSS") - weights
        register_module_forward_pre_hook(lambda module, inputs: self._count(module, type(model), inputs))

    def _count(self, module: nn.Module, kind: type, inputs: tuple[Any, ...]) -> None:
        if (
            type(module) is kind and inputs and not torch.compiler.is_exporting()
        ):  # len() would fix the size of the batch
            self.samples += len(inputs[0])

    def step(self, work: Callable[[], T]) -> tuple[T, dict[str, float]]:
        """What the work returns, and its figures: seconds, samples, memory (peak, in sizes of the weights)."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.samples, started = 0, time.process_time()
        result = work()
        seconds = time.process_time() - started
        peak = (memory("VmHWM") - self.base) / self.weights
        return result, {"seconds": seconds, "samples": self.samples, "memory": peak}


def score_weights(
    meter: Meter, model: nn.Module, found: FoundGroups, workload: Workload, criterion: str
) -> dict[str, float]:
    """The figures of a criterion of single weights."""
    rules = [GroupRule(methods=[f"weights/{criterion}"], types=["Conv2d", "Linear", "Embedding"])]
    groups = build_space(SearchSpaceDefinition(groups=rules), found).groups
    few = Subset(workload.data.calibration, range(SCORED))
    workload = replace(workload, data=replace(workload.data, calibration=few))
    give_back()  # what the search for groups has left is none of this step's
    return meter.step(lambda: weight_saliencies(model, groups, [criterion], workload, {}))[1]


def memory(field: str) -> int:
    """Bytes that the kernel says this process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


def alive(model: nn.Module) -> nn.Module:
    """Statistics and shifts of batch norms as training leaves them: an untrained residual network explodes in float32."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=sorted(NETS), default="resnet50")
    parser.add_argument("--samples", type=int, help="that a candidate is scored on (default 200, quick 32)")
    parser.add_argument(
        "--criterion", choices=WEIGHT_METHODS.own, help="measure scores of single weights by it, no candidates"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Step by step, and say so. folder: for Gram matrices."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = NETS[options.model]
    size = net.size // 4 if options.quick else net.size
    samples = options.samples or (32 if options.quick else 200)
    model = alive(net.build(size))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    workload = workload_of(net, model, size, samples)
    with torch.no_grad():
        model(*workload.example_inputs)
        started = time.process_time()
        for _ in range(3):
            model(*workload.example_inputs)
        forward = (time.process_time() - started) / 3
    meter = Meter(model, weights)
    figures: dict[str, Any] = {"model": options.model, "size": size, "weights_mb": weights / 1e6, "forward_s": forward}
    found, figures["groups"] = meter.step(lambda: find_groups(model, workload.example_inputs))
    if options.criterion:
        figures["scores"] = score_weights(meter, model, found, workload, options.criterion)
        show(figures, f"{options.model} at {size}, weights/{options.criterion}", forward)
        write_json(options.json, figures | {"criterion": options.criterion})
        return
    rules = [GroupRule(methods=["l2"], types=["Conv2d", "Linear", "Embedding"])]
    space = build_space(SearchSpaceDefinition(groups=rules), found)
    definition = EvaluatorDefinition(objectives={"accuracy": "maximize", "macs": "minimize"})
    place = Place(open_devices(definition, Path.cwd()))
    evaluator, figures["export"] = meter.step(
        lambda: Evaluator(definition, DenseModel(model, workload, found.costs), place)
    )
    grams, figures["grams"] = meter.step(
        lambda: TensorFile.written(folder / "grams", grams_of(model, space.groups, workload, definition.refit_images))
    )
    evaluator.cutting.grams = grams
    saliencies, figures["saliency"] = meter.step(
        lambda: compute_saliencies(model, space.groups, space.methods, workload, grams=grams)
    )

    def job(fraction: float) -> Job:
        candidate = space.uniform(fraction, "l2")
        return Job(candidate, resolve(candidate, space.groups, saliencies))

    first, again, other = (job(share * FRACTION) for share in (1, 0.75, 1.25))
    evaluation, figures["first candidate"] = meter.step(lambda: evaluator.evaluate(first))
    if evaluation.failure is not None:
        raise SystemExit(evaluation.failure)
    _, figures["candidate"] = meter.step(lambda: evaluator.evaluate(again))
    _, figures["repair"] = meter.step(lambda: evaluator.compress(other.candidate, other.plan))
    onnx = evaluator.files.rewritten(evaluator.compress(again.candidate, again.plan).module, 0).onnx
    batches = [(workload.data.search[i][0][None].numpy(),) for i in range(samples)]
    _, figures["bare"] = meter.step(lambda: bare(onnx, batches))
    figures["over_bare"] = figures["candidate"]["seconds"] / figures["bare"]["seconds"]
    figures["repair_over_bare"] = figures["repair"]["seconds"] / figures["bare"]["seconds"]
    figures["proven"], figures["excluded"] = len(found.groups), len(found.excluded)
    title = f"{options.model} at {size}, {weights / 1e6:.0f} MB, {len(found.groups)} groups, {samples} samples"
    show(figures, f"{title}; a pass {forward:.3f} s", forward)
    over, repair = figures["over_bare"], figures["repair_over_bare"]
    print(f"candidate over bare: {over:.2f}, of it repair {repair:.2f}; files exported anew: {evaluator.files.exports}")
    write_json(options.json, figures)


def show(figures: dict[str, Any], title: str, forward: float) -> None:
    """Print the steps among the figures. forward: seconds of a pass."""
    table(
        title,
        ["", "CPU-seconds", "forward passes", "samples run", "peak memory, × weights"],
        [
            [name, f"{f['seconds']:.1f}", f"{f['seconds'] / forward:.0f}", f"{f['samples']:.0f}", f"{f['memory']:.1f}"]
            for name, f in figures.items()
            if isinstance(f, dict)
        ],
    )


if __name__ == "__main__":
    main()
