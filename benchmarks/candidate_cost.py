"""What one candidate costs, over a bare ONNX Runtime forward pass of the same images.

Three ways to judge the same candidates, one after the other, one thread:

- bare: the candidate's ONNX file, already made, run on every search image; nothing else.
- secateur: cut, recalibrate batch norms, write the file, check parity, run it on every search image, time it against the dense
  network in alternating blocks, compute all metrics. Nothing is given up early.
- naive: torch-pruning at the same fraction, dynamo export, accuracy in torch, mean of 100 timings of the exported file.
"""

from __future__ import annotations

import copy
import io
import statistics
import time
from collections.abc import Callable

import onnxruntime
import torch
import torch_pruning
from torch import nn

from common import arguments, prepared_pipeline, table, write_json
from secateur.compression.resolution import resolve
from secateur.records import Candidate, Job, Workload
from secateur.workloads.roles import collect

FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare(onnx: bytes, batches: list[tuple[object, ...]]) -> None:
    """A plain forward pass of everything."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    for batch in batches:
        session.run(None, dict(zip(names, batch, strict=True)))


def naive(model: nn.Module, workload: Workload, fraction: float, batch: int) -> None:
    """What is written around a pruning library in an afternoon."""
    pruned = copy.deepcopy(model)
    head = [m for m in pruned.modules() if isinstance(m, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MagnitudePruner(
        pruned,
        workload.example_inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=fraction,
        round_to=8,
        ignored_layers=[head],
    )
    pruner.step()
    file = io.BytesIO()
    torch.onnx.export(pruned, workload.example_inputs, dynamo=True, verbose=False).save(file)
    inputs, targets = collect(workload.data.search)
    with torch.no_grad():
        outputs = torch.cat([pruned(x) for x in inputs[0].split(batch)])
    workload.score(outputs, targets).mean()
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    image = workload.example_inputs[0].numpy()
    for _ in range(100):
        session.run(None, {name: image})


def main() -> None:
    """Print the table."""
    options = arguments(__doc__).parse_args()
    prepared, saliencies = prepared_pipeline(quick=options.quick)
    evaluator, space, workload = prepared.evaluator, prepared.space, prepared.workload
    candidates: list[Candidate] = [space.uniform(f, m) for f in FRACTIONS for m in ("l2", "next_layer")]
    inputs, _ = collect(workload.data.search)
    images = len(inputs[0])
    batches = [(x.numpy(),) for x in inputs[0].split(1)]
    jobs = [Job(candidate, resolve(candidate, space.groups, saliencies)) for candidate in candidates]
    evaluator.evaluate(jobs[0])  # loads the data
    naive(prepared.model, workload, FRACTIONS[0], 100)  # the exporter's imports
    rows = []
    for job in jobs[:: 2 if options.quick else 1]:
        compressed = evaluator.compress(job.candidate, job.plan)
        onnx = evaluator.files.template.render(compressed.module)
        network = evaluator.files.rewritten(compressed.module, 0)
        ours = [
            (
                seconds(lambda: bare(onnx, batches)),  # noqa: B023 # called at once
                seconds(lambda: evaluator.evaluate(job)),  # noqa: B023
                seconds(lambda: evaluator.measuring.measured(network, "search", ["latency"])),  # noqa: B023
            )
            for _ in range(3)
        ]
        rows.append(
            {
                "bare": statistics.median(b for b, _, _ in ours),
                "ratio": statistics.median(o / b for b, o, _ in ours),
                "timed": statistics.median(t / b for b, _, t in ours),
            }
        )
    dense = statistics.median(seconds(lambda: bare(evaluator.files.dense.onnx, batches)) for _ in range(5))
    peers = [seconds(lambda: naive(prepared.model, workload, f, 100)) for f in FRACTIONS[:: 2 if options.quick else 1]]  # noqa: B023
    base = statistics.median(r["bare"] for r in rows)
    ratio = statistics.median(r["ratio"] for r in rows)
    own = statistics.median(r["bare"] * r["ratio"] for r in rows)
    timing = statistics.median(r["timed"] for r in rows)
    slow = statistics.median(peers)
    table(
        f"one candidate of {workload.name}, {images} images, 1 thread, batch 1; median of {len(rows)} candidates",
        ["", "seconds", "over its own bare pass", "over the dense network's"],
        [
            ["bare forward pass, candidate", f"{base:.3f}", "1.00", f"{base / dense:.2f}"],
            ["bare forward pass, dense", f"{dense:.3f}", f"{dense / base:.2f}", "1.00"],
            ["secateur, everything", f"{own:.3f}", f"{ratio:.2f}", f"{own / dense:.2f}"],
            ["of it timing on the device", f"{timing * base:.3f}", f"{timing:.2f}", f"{timing * base / dense:.2f}"],
            ["naive loop", f"{slow:.3f}", f"{slow / base:.2f}", f"{slow / dense:.2f}"],
        ],
    )
    spread = [r["ratio"] for r in rows]
    print(
        f"secateur over bare, per candidate: {min(spread):.2f} to {max(spread):.2f}; exports needed: {evaluator.files.exports}"
    )
    print(f"naive over secateur: {slow / own:.1f}×")
    write_json(
        options.json,
        {"images": images, "bare_s": base, "dense_bare_s": dense, "secateur_s": own, "naive_s": slow, "ratio": ratio,
         "timing_ratio": timing, "ratio_range": [min(spread), max(spread)], "exports": evaluator.files.exports},
    )  # fmt: skip


if __name__ == "__main__":
    main()
