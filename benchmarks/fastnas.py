r"""FastNAS of NVIDIA Model Optimizer and secateur: accuracy at one budget of MACs, and what a front of eight points costs.

Both cut the same network in steps of eight channels and score it on the same images. FastNAS gets one search for each budget; the
sensitivity map, which is most of its work, is made once and shared by all of them. Secateur searches for accuracy and MACs, so
that it solves the same problem. Networks of both are repaired (refitted and recalibrated) and measured the same way, and those at
the one budget are fine-tuned by the same recipe for the same number of steps; selection data, which neither search saw, decide.

FastNAS runs in an interpreter of its own, because Model Optimizer has no place among this project's dependencies:

    python3.11 -m venv DIR
    DIR/bin/pip install torch==2.13.0 huggingface_hub ninja omegaconf packaging psutil pulp pydantic regex requests rich \
        safetensors scipy tqdm
    DIR/bin/pip install --no-deps nvidia-modelopt==0.47.0 torchprofile==0.0.4
    python benchmarks/fastnas.py --modelopt-python DIR/bin/python
"""

from __future__ import annotations

import inspect
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from arms import secateur
from common import add_model, arguments, prepared_pipeline, spread, table, write_json
from hypervolume import Course, Race
from judging import Judge, plan_of
from secateur import workloads
from secateur.compression.resolution import resolve
from secateur.records import Candidate, Evaluation, Plan
from secateur.workloads.roles import collect
from tuning import score_on, tune_briefly

BUDGET = 0.6
"""Share of the dense network's MACs at which accuracies are compared."""
SHARES = (0.9, 0.82, 0.74, 0.66, 0.6, 0.5, 0.42, 0.34)
"""The eight budgets of the front; below a third FastNAS finds nothing, because it cuts inside the blocks only."""
_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
SAME_PROBLEM = "evaluator.objectives={accuracy: maximize, macs: minimize}"


def run_fastnas(python: Path, judge: Judge, calibration: int) -> dict[str, Any]:
    """Search in the other interpreter. Returns its version, and for each share the channels that leave and the CPU-seconds."""
    workload = judge.prepared.workload
    (images,), targets = collect(workload.data.search)
    (calibrating,), _ = collect(workload.data.calibration, calibration)
    job = {"model": judge.prepared.model, "images": images, "targets": targets, "calibration": calibrating}
    package = Path(inspect.getfile(workloads)).parents[2]  # the other interpreter needs the module of the network
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save({**job, "divisor": 8, "shares": SHARES}, folder / "job.pt")
        command = [python, Path(__file__).with_name("fastnas_worker.py"), folder]
        environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"FastNAS failed:\n{done.stderr[-3000:]}")
        result = json.loads((folder / "result.json").read_text())
        networks = [torch.load(folder / f"network-{i}.pt", weights_only=True) for i in range(len(SHARES))]
    groups, dense = judge.prepared.space.groups, judge.prepared.model
    plans = [_PLAN.dump_python(plan_of(dense, groups, tensors), mode="json") for tensors in networks]
    return {"version": result["version"], "plans": plans, "cpu_s": [s["cpu_s"] for s in result["searches"]]}


def best_within(judge: Judge, course: Course, share: float) -> Evaluation | None:
    """The most accurate evaluation with at most this share of the dense network's MACs.

    None below the accuracy that the search allows: it looks for nothing there.
    """
    most = round(share * judge.prepared.costs.total)
    found = [step.evaluation for step in course.steps if step.evaluation.complete]
    return max(
        (e for e in found if e.measurements["macs"].value <= most),
        key=lambda e: e.measurements["accuracy"].value,
        default=None,
    )


def fronts(judge: Judge, theirs: Course, ours: Sequence[Course]) -> dict[str, Any]:
    """Accuracy on search data at the MACs of each of FastNAS's points, volumes, and CPU-seconds."""
    total, rows = judge.prepared.costs.total, []
    for step in theirs.steps:
        share = step.evaluation.measurements["macs"].value / total
        found = [best for c in ours if (best := best_within(judge, c, share)) is not None]
        accuracy = [best.measurements["accuracy"].value for best in found]
        shown = spread(accuracy, 3) if accuracy else ["–"] * 3
        rows.append([f"{share:.3f}", f"{step.evaluation.measurements['accuracy'].value:.3f}", *shown])
    table(
        "accuracy on search data at FastNAS's MACs, before fine-tuning",
        ["MACs, of dense", "FastNAS", "secateur, median", "lowest", "highest"],
        rows,
    )
    race = Race.between(ours, [theirs])
    figures = {
        "volume": {"FastNAS": theirs.volumes[-1], "secateur": [c.volumes[-1] for c in ours]},
        "cpu_s": {"FastNAS": theirs.seconds[-1], "secateur": [c.seconds[-1] for c in ours]},
    }
    table(
        f"a front of {len(theirs.steps)} points: accuracy and MACs",
        ["", "CPU-seconds", "volume, median", "lowest", "highest"],
        [
            ["FastNAS", f"{theirs.seconds[-1]:.0f}", *spread([theirs.volumes[-1]])],
            [
                "secateur",
                f"{statistics.median(c.seconds[-1] for c in ours):.0f}",
                *spread([c.volumes[-1] for c in ours]),
            ],
        ],
    )
    print(
        f"CPU-seconds until FastNAS's volume, over its own: {' '.join(spread(race.seconds_share, 2))} (median, range)"
    )
    return {"rows": rows, **figures, "race": vars(race)}


def one_budget(judge: Judge, fastnas: Plan, ours: Sequence[Course], steps: int) -> dict[str, Any]:
    """Accuracy on selection data at one budget of MACs, recalibrated and after the short fine-tuning."""
    prepared = judge.prepared
    share = prepared.costs.after(fastnas) / prepared.costs.total
    theirs = accuracies(judge, fastnas, steps)
    groups = prepared.space.groups
    best = [found for c in ours if (found := best_within(judge, c, share)) is not None]
    picked = [resolve(each.candidate, groups, judge.saliencies) for each in best]
    found = [accuracies(judge, plan, steps) for plan in picked]
    shares = [prepared.costs.after(plan) / prepared.costs.total for plan in picked]
    rows = [["FastNAS", f"{share:.3f}", f"{theirs[0]:.4f}", f"{theirs[1]:.4f}"]]
    for seed, (macs, (before, after)) in enumerate(zip(shares, found, strict=True)):
        rows.append([f"secateur, seed {seed}", f"{macs:.3f}", f"{before:.4f}", f"{after:.4f}"])
    table(
        f"accuracy on selection data at no more than FastNAS's MACs ({BUDGET:.0%} were allowed)",
        ["", "MACs, of dense", "recalibrated", f"{steps} steps of fine-tuning"],
        rows,
    )
    gains = [after - theirs[1] for _, after in found]
    print(f"secateur over FastNAS after fine-tuning: {' '.join(spread(gains))} (median, lowest, highest)")
    return {
        "steps": steps,
        "FastNAS": [share, *theirs],
        "secateur": [[m, *f] for m, f in zip(shares, found, strict=True)],
    }


def accuracies(judge: Judge, plan: Plan, steps: int) -> tuple[float, float]:
    """On selection data: recalibrated, and after the short fine-tuning."""
    prepared = judge.prepared

    def measure() -> list[float]:
        module = prepared.evaluator.compress(Candidate({}), plan).module
        after = tune_briefly(prepared, module, steps)
        return [score_on(prepared, m, "selection") for m in (module, after)]

    before, after = judge.kept.get(f"tuned {steps} {plan.key}", measure)
    return before, after


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    add_model(parser)
    parser.add_argument("--modelopt-python", type=Path, help="interpreter that has Model Optimizer (see above)")
    parser.add_argument("--evaluations", type=int, help="networks that secateur may evaluate (default 60, quick 30)")
    parser.add_argument("--seeds", type=int, help="searches of secateur (default 5, quick 2)")
    parser.add_argument("--steps", type=int, help="of fine-tuning, 128 images each (default 200, quick 20)")
    parser.add_argument("--calibration", type=int, default=100, help="images from which FastNAS recalibrates")
    options = parser.parse_args()
    python = options.modelopt_python or os.environ.get("MODELOPT_PYTHON")
    if python is None:
        raise SystemExit(
            "Not run: name an interpreter that has NVIDIA Model Optimizer with --modelopt-python (see --help)."
        )
    budget, steps = (
        options.evaluations or (30 if options.quick else 60),
        options.steps or (20 if options.quick else 200),
    )
    seeds = range(options.seeds or (2 if options.quick else 5))
    prepared, saliencies = prepared_pipeline(
        quick=options.quick, model=options.model, overrides=[SAME_PROBLEM, *options.set]
    )
    judge = Judge(prepared, saliencies, options.keep)
    name = f"FastNAS {options.calibration}"
    found = judge.kept.get(name, lambda: run_fastnas(Path(python), judge, options.calibration))
    networks = [_PLAN.validate_python(plan) for plan in found["plans"]]
    steps_of_theirs = [
        replace(step, seconds=step.seconds + seconds)
        for step, seconds in zip(map(judge.evaluate_plan, networks), found["cpu_s"], strict=True)
    ]
    theirs = Course.of(judge, steps_of_theirs)
    print(f"Model Optimizer {found['version']}: CPU-seconds of its searches {[round(s, 1) for s in found['cpu_s']]}")
    ours = [Course.of(judge, secateur(judge, budget, seed)) for seed in seeds]
    figures = fronts(judge, theirs, ours)
    at_budget = one_budget(judge, networks[SHARES.index(BUDGET)], ours, steps)
    write_json(options.json, {"fastnas": found, **figures, "one_budget": at_budget})


if __name__ == "__main__":
    main()
