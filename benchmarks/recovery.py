"""What recovery is worth: the score on test data after as many passes over the same data, of networks with equally many MACs.

- secateur: every group loses the same share of its channels by `obs`; the cut network is refitted and recalibrated as candidates of
  a search are, then trained as `recover` of the pipeline says: SGD, a cosine schedule, distillation.
- refitted, plain: the same network by the same training without distillation.
- plain: the same channels leave, and nothing is refitted or recalibrated; the training without distillation.
- torch-pruning: its recipe for CIFAR-10, without sparse training. GroupNormPruner with one threshold for all layers, in small steps
  until the MACs are reached; then SGD with learning rate .01, a tenth of it after 60 % and a hundredth after 80 %, momentum .9,
  weight decay 5e-4. The last network counts, not the best. Streams stay whole: `arms.torch_pruning_networks` says why.

No arm is tuned: ours has the pipeline's values, torch-pruning those of its authors. A seed draws the order of the samples and the
augmentation, the same for every arm. Nothing is chosen by test data.

The folder of an experiment in `benchmarks/results/recovery` has a JSON file for each arm and seed: what is there is not done again.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import nn

from arms import ignored_layers
from common import add_model, arguments, prepared_pipeline, write_json
from criteria import spread
from secateur.compression.costs import layer_costs
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.definition import RecoverDefinition
from secateur.evaluators.paired import change
from secateur.evaluators.sample_scores import Scores
from secateur.formatting import difference_with_interval
from secateur.pipelines.preparation import Prepared
from secateur.records import SHARE, Plan, Workload
from secateur.recovery.batches import Batches, read
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.loop import length_of
from secateur.recovery.randomness import drawn_from, seeded
from tuning import score_on, scores_on

RESULTS = Path(__file__).parent / "results" / "recovery"
OURS = "secateur"
MOST_APART = 0.02
"""Of the MACs of two arms, relative to each other."""


def cut_by_obs(prepared: Prepared, saliencies: Saliencies, share: float) -> Plan:
    """The mildest uniform cut that leaves at most this share of the MACs."""
    space, costs = prepared.space, prepared.costs
    plans = (resolve(space.uniform(f, "obs"), space.groups, saliencies) for f in np.arange(0.01, 0.95, 0.01))
    return next(plan for plan in plans if costs.after(plan) <= share * costs.total)


def cut_by_group_norm(prepared: Prepared, share: float) -> nn.Module:
    """What torch-pruning leaves at the first step with at most this share of the MACs."""
    model, inputs = copy.deepcopy(prepared.model), prepared.workload.example_inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.GroupNormPruner(
            model,
            inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=400,
            ignored_layers=ignored_layers(prepared, model, streams=False),
        )
        while macs_of(prepared, model) > share:
            pruner.step()
    return model


def macs_of(prepared: Prepared, module: nn.Module) -> float:
    """A share of the original's."""
    return layer_costs(module.eval(), prepared.workload.example_inputs).total / prepared.costs.total


def trained_in_steps(module: nn.Module, workload: Workload, settings: RecoverDefinition, seed: int) -> nn.Module:
    """torch-pruning's training, on the batches that `fine_tune` would draw. settings: only batch and length count."""
    length, augment = length_of(workload, settings), workload.augment
    assert length.steps is not None  # noqa: S101 # no minutes here
    student = copy.deepcopy(module).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload] # torch's annotation lacks it
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    milestones = [round(0.6 * length.steps), round(0.8 * length.steps)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    batches = read(Batches(workload.data.train, length.batch, length.in_a_pass, seed), 0, 0, pinned=False)
    for number in range(length.steps):
        (images,), targets = next(batches)
        if augment is not None:
            images = augment(images, drawn_from(seed, "augment", number))
        loss = workload.loss(student(images.contiguous(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        optimizer.step()
        schedule.step()
    return student.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload, no-any-return] # the same


Arm = tuple[nn.Module, Callable[[nn.Module, int], nn.Module]]
"""The cut network, and how it is trained by a seed."""


def arms(prepared: Prepared, saliencies: Saliencies, share: float, settings: RecoverDefinition) -> dict[str, Arm]:
    """Name → arm. Leaves where the MACs of two networks differ too much."""
    plan = cut_by_obs(prepared, saliencies, share)
    refitted = prepared.evaluator.cutting.cut(plan, prepared.evaluator.definition.calibration_images)
    theirs = cut_by_group_norm(prepared, share)
    ratio = macs_of(prepared, refitted) / macs_of(prepared, theirs)
    if abs(ratio - 1) > MOST_APART:
        raise SystemExit(f"Ours has {ratio:.3f} times the MACs of torch-pruning's network: choose another --share.")

    def tuned(settings: RecoverDefinition, module: nn.Module, seed: int) -> nn.Module:
        return fine_tune(module, prepared.model, prepared.workload, settings, Training(seed=seed)).module

    def in_steps(module: nn.Module, seed: int) -> nn.Module:
        with seeded(seed):
            return trained_in_steps(module, prepared.workload, settings, seed)

    undistilled = partial(tuned, settings.model_copy(update={"distill": None}))
    return {
        OURS: (refitted, partial(tuned, settings)),
        "torch-pruning": (theirs, in_steps),
        "plain": (apply(prepared.model, plan), undistilled),
        "refitted, plain": (refitted, undistilled),
    }


def figures(prepared: Prepared, arm: Arm, seed: int) -> dict[str, Any]:
    """Share of the MACs, scores before and after training, CPU-seconds of it. right: bits of the test samples, in hexadecimal."""
    module, train = arm
    started = time.process_time()
    trained = train(module, seed)
    seconds = time.process_time() - started
    test = scores_on(prepared, trained, "test")
    return {
        "macs": macs_of(prepared, module),
        "cut": score_on(prepared, module, "selection"),
        "selection": score_on(prepared, trained, "selection"),
        "test": test.value,
        "cpu_s": seconds,
        "samples": test.samples,
        "right": np.packbits(test.values.astype(bool)).tobytes().hex(),
    }


def scores_in(result: dict[str, Any]) -> Scores:
    """What a network scored on test samples, out of its file."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["right"]), np.uint8), count=result["samples"])
    return Scores(result["samples"], True, bits.astype(np.float64))


def over_seeds(results: dict[int, dict[str, Any]], seeds: list[int]) -> Scores:
    """The scores of the seeds, as samples."""
    return Scores(len(seeds), True, np.array([results[seed]["test"] for seed in seeds]))


def over_samples(results: dict[int, dict[str, Any]], seeds: list[int]) -> Scores:
    """What a sample scores on average over the seeds."""
    scores = [scores_in(results[seed]) for seed in seeds]
    return Scores(scores[0].samples, True, np.mean([s.values for s in scores], 0))


def markdown(folder: Path) -> None:
    """Print an experiment: the arms, and what ours has over each of the others on the same test samples, with 95 % intervals."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        found.setdefault(result["arm"], {})[result["seed"]] = result
    print(f"\n{folder.name}\n\n| arm | MACs | cut | trained: selection | test | CPU-s |\n|{'---|' * 6}")
    for arm, results in found.items():
        columns = ([result[name] for result in results.values()] for name in ("cut", "selection", "test"))
        macs = next(iter(results.values()))["macs"]
        seconds = np.median([result["cpu_s"] for result in results.values()])
        print(f"| {arm} | {macs:.1%} | {' | '.join(map(spread, columns))} | {seconds:.0f} |")
    ours = found.pop(OURS)
    seeds = sorted(ours)
    print(f"\n| {OURS} minus | {' | '.join(f'seed {s}' for s in seeds)} | mean: over samples | over seeds |")
    print(f"|{'---|' * (len(seeds) + 3)}")
    for arm, theirs in found.items():
        both = [seed for seed in seeds if seed in theirs]
        cells = [
            difference_with_interval(change(scores_in(ours[s]), scores_in(theirs[s])), SHARE) if s in both else "–"
            for s in seeds
        ]
        for mean in (over_samples, over_seeds):
            several = len(both) > 1
            cells.append(
                difference_with_interval(change(mean(ours, both), mean(theirs, both)), SHARE) if several else "–"
            )
        print(f"| {arm} | {' | '.join(cells)} |")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--share", type=float, default=0.5, help="of the MACs that stay, at most")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", help="only these")
    options = parser.parse_args()
    rules = "search_space={groups: [{methods: [obs], removed: [0.0, 0.95]}]}"
    prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=[rules, *options.set])
    settings = prepared.definition.recover.lasting(epochs=options.epochs)
    folder = RESULTS / f"{prepared.workload.name}-{options.share:g}-{options.epochs}-epochs"
    folder.mkdir(parents=True, exist_ok=True)
    made = arms(prepared, saliencies, options.share, settings)
    for seed in range(options.seeds):
        for name in options.arms or made:
            file = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            if not file.is_file():
                found = figures(prepared, made[name], seed)
                write_json(file, {"arm": name, "seed": seed, "epochs": options.epochs} | found)
                print(file, f"{found['test']:.4f}", flush=True)
    markdown(folder)


if __name__ == "__main__":
    main()
