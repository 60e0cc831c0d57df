"""What sparse training before cutting is worth: the same widths from a network with and without it, so equal MACs, and the scores.

Every group loses the same share of its channels, those that a criterion ranks lowest. Cut are the original, the network after some
epochs with a penalty (`sparse_training`), and one after as many epochs without. Each cut network is refitted and recalibrated as
candidates of a search are, and tuned as finalists are; the original also for as many more epochs as the others were trained before.
Scores are of search and selection data together, in torch. A seed draws the order of training samples and the augmentation.

The folder of an experiment in `benchmarks/results/sparse_training` has a JSON file for each arm and seed: what is there is not done
again, and the same command goes on after it was stopped.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import add_model, arguments, loaded_pipeline, write_json
from criteria import spread
from secateur.compression.compensation.gram import grams_of
from secateur.compression.resolution import resolve
from secateur.compression.saliency import compute_saliencies
from secateur.definition import SparseTrainingDefinition
from secateur.evaluators.cutting import Cutting
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.sparse_training import penalty_of, settings_of
from secateur.records import Candidate
from secateur.recovery.fine_tune import Training, fine_tune
from tuning import score_on

RESULTS = Path(__file__).parent / "results" / "sparse_training"
CRITERIA = ("bn_scale", "l2")
COLUMNS = ("uncut", "cut", "tuned")


def score(prepared: Prepared, module: nn.Module) -> float:
    """Mean over search and selection data."""
    sizes = {role: len(getattr(prepared.workload.data, role)) for role in ("search", "selection")}
    return sum(size * score_on(prepared, module, role) for role, size in sizes.items()) / sum(sizes.values())


class Source:
    """A network to cut, with what its candidates are refitted by. seed: of all training."""

    def __init__(self, prepared: Prepared, model: nn.Module, seed: int) -> None:
        self.prepared, self.model, self.seed = prepared, model, seed
        workload, definition = prepared.workload, prepared.evaluator.definition
        self.grams = grams_of(model, prepared.space.groups, workload, definition.refit_images)
        self.cutting = Cutting(model, workload)
        self.cutting.grams = self.grams

    def cut(self, criterion: str, fraction: float) -> tuple[nn.Module, float]:
        """The network without a share of each group's channels, refitted and recalibrated, and its share of the MACs."""
        prepared, groups = self.prepared, self.prepared.space.groups
        edits = {n: c.nearest(fraction, criterion).edits(criterion) for n, c in prepared.space.choices.items()}
        scores = compute_saliencies(self.model, groups, [criterion], prepared.workload, self.grams)
        plan = resolve(Candidate.of(edits), groups, scores)
        module = self.cutting.cut(plan, prepared.evaluator.definition.calibration_images)
        return module, prepared.costs.after(plan) / prepared.costs.total

    def scored(self, criterion: str, fraction: float, epochs: int) -> dict[str, Any]:
        """Share of the MACs, and scores: of the network, cut, and after so many epochs of tuning."""
        prepared = self.prepared
        cut, macs = self.cut(criterion, fraction)
        settings = prepared.definition.recover.model_copy(update={"epochs": epochs})
        tuned = fine_tune(cut, prepared.model, prepared.workload, settings, Training(seed=self.seed)).module
        networks = {"uncut": self.model, "cut": cut, "tuned": tuned}
        figures = {name: score(prepared, network) for name, network in networks.items()}
        return {"macs": macs, **figures}


def trained(prepared: Prepared, sparse: SparseTrainingDefinition, seed: int, *, penalised: bool) -> Source:
    """The network after sparse training, or after the same training without its penalty."""
    training = Training(seed=seed, penalty=penalty_of(prepared, sparse) if penalised else None)
    settings = settings_of(prepared.definition, sparse)
    return Source(
        prepared, fine_tune(prepared.model, prepared.model, prepared.workload, settings, training).module, seed
    )


def markdown(folder: Path) -> None:
    """Print an experiment's results, criterion by criterion."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        found.setdefault((result["criterion"], result["arm"]), []).append(result)
    shares = {round(result["macs"], 6) for results in found.values() for result in results}
    if len(shares) != 1:
        raise SystemExit(f"{folder} holds networks of different MACs: {sorted(shares)}.")
    seeds = sorted({result["seed"] for results in found.values() for result in results})
    print(f"\n{folder.name}: {shares.pop():.0%} of the MACs; median (range) of seeds {', '.join(map(str, seeds))}\n")
    print(f"| criterion | before the cut | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    for (criterion, arm), results in sorted(
        found.items(), key=lambda e: (e[0][0], -statistics.median(r["tuned"] for r in e[1]))
    ):
        print(f"| {criterion} | {arm} | {' | '.join(spread([r[column] for r in results]) for column in COLUMNS)} |")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of training before the cut")
    parser.add_argument("--tuning", type=int, default=5, help="epochs behind it")
    parser.add_argument("--fractions", type=float, nargs="*", default=(0.5, 0.75), help="of the channels that leave")
    parser.add_argument("--bn_l1", type=float, nargs="*", default=(), metavar="STRENGTH")
    parser.add_argument("--group_lasso", type=float, nargs="*", default=(), metavar="STRENGTH")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rules = "search_space={groups: [{methods: [bn_scale, l2], removed: [0.0, 0.95]}]}"
    prepared = loaded_pipeline(quick=options.quick, model=options.model, overrides=[rules, *options.set])
    about = f"{options.epochs}+{options.tuning}-epochs"
    folders = {f: RESULTS / f"{prepared.workload.name}-{f:g}-{about}" for f in options.fractions}
    for seed in range(options.seeds):
        sparse = {
            f"{penalty} {strength:g}": SparseTrainingDefinition(
                penalty=penalty, strength=strength, epochs=options.epochs
            )
            for penalty in ("bn_l1", "group_lasso")
            for strength in getattr(options, penalty)
        }
        plain = SparseTrainingDefinition(epochs=options.epochs)
        arms: dict[str, tuple[Callable[[], Source], int]] = {
            "nothing": (partial(Source, prepared, prepared.model, seed), options.tuning),
            "nothing, tuned longer": (partial(Source, prepared, prepared.model, seed), options.tuning + options.epochs),
            "training": (partial(trained, prepared, plain, seed, penalised=False), options.tuning),
            **{
                name: (partial(trained, prepared, settings, seed, penalised=True), options.tuning)
                for name, settings in sparse.items()
            },
        }
        for arm, (made, epochs) in arms.items():
            source: Source | None = None
            for fraction, folder in folders.items():
                folder.mkdir(parents=True, exist_ok=True)
                for criterion in CRITERIA:
                    file = folder / f"{criterion}-{arm.replace(', ', '-').replace(' ', '-')}-{seed}.json"
                    if not file.is_file():
                        source = source or made()
                        figures = source.scored(criterion, fraction, epochs)
                        write_json(file, {"criterion": criterion, "arm": arm, "seed": seed, "tuning": epochs} | figures)
                        print(file, flush=True)
    for folder in folders.values():
        markdown(folder)


if __name__ == "__main__":
    main()
