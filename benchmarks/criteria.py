"""Which criterion finds the channels that matter least: the same widths by each, so equal MACs, and the scores that are left.

Every layer whose channels it alone writes loses the same share of them (streams stay whole: where shortcuts pad channels, peers
couple them otherwise). Each network is recalibrated, or refitted and recalibrated as candidates of a search are, and then tuned for
a few steps. Peers are torch-pruning's own magnitude and Taylor importances, in its pruner. A seed draws the calibration samples,
the order of training samples, and the channels of `random`.

Each experiment has a folder in `benchmarks/results/criteria`, and there each criterion and seed a JSON file: what is there is not
done again, and the same command goes on after it was stopped.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.utils.data import Subset

from arms import written_once
from common import add_model, arguments, loaded_pipeline, write_json
from judging import plan_of
from secateur.compression.compensation.gram import grams_of
from secateur.compression.criteria import METHODS
from secateur.compression.resolution import resolve
from secateur.compression.saliency import BATCH, BATCHES, Saliencies, compute_saliencies
from secateur.evaluators.cutting import Cutting
from secateur.pipelines.preparation import Prepared
from secateur.records import Candidate, Plan
from secateur.workloads.roles import collect
from tuning import score_on, tune_briefly

RESULTS = Path(__file__).parent / "results" / "criteria"
CALIBRATION = 512
"""Samples that a seed draws from the training data."""
COLUMNS = ("BN", "LS + BN", "tuned")


def calibrated(prepared: Prepared, seed: int) -> Prepared:
    """The same with calibration samples that a seed draws from the training data."""
    train = prepared.workload.data.train
    chosen = np.random.default_rng(seed).permutation(len(train))[:CALIBRATION].tolist()  # type: ignore[arg-type] # map-style
    data = replace(prepared.workload.data, calibration=Subset(train, chosen))
    return replace(prepared, workload=replace(prepared.workload, data=data))


class Arms:
    """The plans that the criteria and their peers make, on the calibration samples of one seed."""

    def __init__(self, prepared: Prepared, seed: int) -> None:
        self.prepared = calibrated(prepared, seed)
        self.seed, self.workload, self.model = seed, self.prepared.workload, prepared.model
        names = written_once(prepared)
        self.choices = {name: choice for name, choice in prepared.space.choices.items() if name in names}
        images = prepared.evaluator.definition.refit_images
        self.grams = grams_of(self.model, prepared.space.groups, self.workload, images)
        self.plain, self.repaired = (Cutting(self.model, self.workload) for _ in range(2))
        self.repaired.grams = self.grams

    def ours(self, method: str, fraction: float) -> Plan:
        """A criterion of ours."""
        candidate = Candidate.of(
            {name: c.nearest(fraction, "random").edits(method) for name, c in self.choices.items()}
        )
        return resolve(candidate, self.prepared.space.groups, self._scores(method))

    def _scores(self, method: str) -> Saliencies:
        groups = [choice.group for choice in self.choices.values()]
        if method != "random":
            return compute_saliencies(self.model, groups, [method], self.workload, self.grams)
        generator = torch.Generator().manual_seed(self.seed)
        return {group.name: {method: torch.rand(group.width, generator=generator)} for group in groups}

    def torch_pruning(self, importance: Callable[[], Any], fraction: float, *, graded: bool = False) -> Plan:
        """torch-pruning's pruner with one of its importances. graded: behind a backward pass."""
        model = copy.deepcopy(self.model)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = torch_pruning.pruner.MagnitudePruner(
                model,
                self.workload.example_inputs,
                importance=importance(),
                pruning_ratio=fraction,
                ignored_layers=[m for n, m in layers.items() if n not in self.choices],
            )
            if graded:
                inputs, targets = collect(self.workload.data.calibration, BATCH * BATCHES)
                self.workload.loss(model(*inputs), targets).backward()  # type: ignore[no-untyped-call] # torch does not annotate it
            pruner.step()
        return plan_of(self.model, self.prepared.space.groups, model.state_dict())

    def all(self) -> dict[str, Callable[[float], Plan]]:
        """Arm → the plan that removes a share of the channels."""
        importance = torch_pruning.importance
        return {
            **{method: partial(self.ours, method) for method in METHODS.own},
            "torch-pruning magnitude": partial(self.torch_pruning, partial(importance.MagnitudeImportance, p=2)),
            "torch-pruning taylor": partial(self.torch_pruning, importance.TaylorImportance, graded=True),
        }

    def scored(self, arm: str, fraction: float, steps: int) -> dict[str, Any]:
        """The figures of one network: share of the MACs, CPU-seconds from the dense network to the plan, scores on search data."""
        started = time.process_time()
        plan = self.all()[arm](fraction)
        seconds = time.process_time() - started
        images = self.prepared.evaluator.definition.calibration_images
        refitted = self.repaired.cut(plan, images)
        networks = {"BN": self.plain.cut(plan, images), "LS + BN": refitted}
        scores = {way: score_on(self.prepared, network, "search") for way, network in networks.items()}
        tuned = score_on(self.prepared, tune_briefly(self.prepared, refitted, steps, self.seed), "search")
        costs = self.prepared.costs
        return {"macs": costs.after(plan) / costs.total, "plan_cpu_s": seconds, **scores, "tuned": tuned}


def spread(values: list[float]) -> str:
    """Median (lowest–highest), as a score."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def markdown(folder: Path) -> None:
    """Print an experiment's results, the best behind tuning first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        found.setdefault(result["criterion"], []).append(result)
    shares = {round(result["macs"], 6) for results in found.values() for result in results}
    if len(shares) != 1:
        raise SystemExit(f"{folder} holds networks of different MACs: {sorted(shares)}.")
    seeds = sorted({result["seed"] for results in found.values() for result in results})
    print(f"\n{folder.name}: {shares.pop():.0%} of the MACs; median (range) of seeds {', '.join(map(str, seeds))}\n")
    print(f"| criterion | {' | '.join(COLUMNS)} | CPU-s |\n|{'---|' * (len(COLUMNS) + 2)}")
    for name in sorted(found, key=lambda name: -statistics.median(r["tuned"] for r in found[name])):
        results = found[name]
        scores = " | ".join(spread([result[column] for result in results]) for column in COLUMNS)
        print(f"| {name} | {scores} | {statistics.median(r['plan_cpu_s'] for r in results):.1f} |")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--steps", type=int, help="of fine-tuning (default 100, quick 10)")
    parser.add_argument("--seeds", type=int, help="how many (default 3, quick 1)")
    parser.add_argument("--fractions", type=float, nargs="*", default=(0.5, 0.75), help="of the channels that leave")
    options = parser.parse_args()
    steps, seeds = options.steps or (10 if options.quick else 100), options.seeds or (1 if options.quick else 3)
    torch.set_num_threads(1)
    rules = "search_space={groups: [{methods: [random], removed: [0.0, 0.95]}]}"
    prepared = loaded_pipeline(quick=options.quick, model=options.model, overrides=[rules, *options.set])
    folders = {f: RESULTS / f"{prepared.workload.name}-{f:g}-{steps}-steps" for f in options.fractions}
    for seed in range(seeds):
        arms = Arms(prepared, seed)
        for fraction, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            for arm in arms.all():
                file = folder / f"{arm.replace(' ', '-')}-{seed}.json"
                if not file.is_file():
                    about = {"criterion": arm, "seed": seed, "fraction": fraction, "steps": steps}
                    write_json(file, about | arms.scored(arm, fraction, steps))
                    print(file, flush=True)
    for folder in folders.values():
        markdown(folder)


if __name__ == "__main__":
    main()
