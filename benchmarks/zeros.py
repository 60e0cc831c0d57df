"""Which way of choosing zeros loses least when very few weights are left, at the same training.

All layers lose weights by one threshold of the criterion, so that a layer's share is its own; those whose scores do not compare
between layers (wanda, obs) and those that training chooses (gradual, movement, tickets, magnitude in five steps) take the shares of
`magnitude`. Networks of criteria are refitted and recalibrated as
candidates of a search are. Then each is trained for the same number of steps in all, distilled from the original; a ticket's five
trainings share them, and start from early weights where the workload has some; its zeros with new weights are trained as the ticket
is in the end. A seed draws calibration samples, training samples and their order, and the scores of `random`.

Each experiment has a folder in `benchmarks/results/zeros`, and there each way, share and seed a JSON file: what is there is not
done again, and the same command goes on after it was stopped.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from common import add_model, arguments, loaded_pipeline, write_json
from criteria import calibrated, spread
from secateur.compression.compensation.gram import grams_of
from secateur.compression.costs import nonzero_after
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.evaluators.cutting import Cutting
from secateur.pipelines.finalists import Finalist, renewed
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.ranking import scores_of
from secateur.pipelines.tuning import Tuning
from secateur.records import PER_MILLE, WEIGHTS, Candidate, CompressedModel, Edit, Plan
from tuning import BATCH, RECIPE, score_on

RESULTS = Path(__file__).parent / "results" / "zeros"
STEPS = 5
"""Of iterative pruning."""
CRITERIA = ("magnitude", "lamp", "wanda", "snip", "synflow", "obs", "random")
TRAINED: dict[str, dict[str, Any]] = {
    "gradual": {"masks": "gradual"},
    "movement": {"masks": "movement"},
    f"magnitude in {STEPS} steps": {"steps": STEPS},
    "lottery ticket": {"steps": STEPS, "rewind": True},
}
"""Ways that choose in training or between its steps, and what `recover` says for them."""


NEW = "new weights"


def comparable(criterion: str) -> bool:
    """Whether one threshold on its scores says how much each layer loses."""
    return criterion not in WEIGHT_METHODS or WEIGHT_METHODS[criterion].comparable


class Arms:
    """The ways to choose zeros, on the calibration samples of one seed."""

    def __init__(self, prepared: Prepared, seed: int) -> None:
        self.prepared = calibrated(prepared, seed)
        self.seed, self.groups = seed, prepared.space.groups
        images = prepared.evaluator.definition.refit_images
        self.cutting = Cutting(prepared.model, self.prepared.workload)
        self.cutting.grams = grams_of(prepared.model, self.groups, self.prepared.workload, images)

    def names(self) -> list[str]:
        """The ways that this workload allows."""
        early = self.prepared.workload.build_early is not None
        return [*CRITERIA, *(name for name, settings in TRAINED.items() if early or not settings.get("rewind"))]

    def scores(self, criterion: str) -> Saliencies:
        """Of all weights."""
        if criterion != "random":
            method = f"{WEIGHTS}/{criterion}"
            return scores_of(self.prepared.model, self.groups, [method], self.prepared.workload, self.cutting.grams)
        generator = torch.Generator().manual_seed(self.seed)
        sizes = {g.name: sum(len(own.rows) * own.inputs * own.kernel for own in g.weights) for g in self.groups}
        return {name: {f"{WEIGHTS}/random": torch.rand(size, generator=generator)} for name, size in sizes.items()}

    def candidate(self, criterion: str, zeros: float, scores: Saliencies) -> Candidate:
        """One threshold for all layers; of each a thousandth of its weights stays at least. scores: that give the shares."""
        by_group: dict[str, Tensor] = {name: next(iter(own.values())) for name, own in scores.items()}
        every = torch.cat([*by_group.values()])
        threshold = every.kthvalue(round(zeros * len(every))).values
        kept = {name: float((own > threshold).float().mean()) for name, own in by_group.items()}
        return Candidate(
            {name: (Edit(WEIGHTS, max(1, round(PER_MILLE * share)), criterion),) for name, share in kept.items()}
        )

    def scored(self, name: str, zeros: float, steps: int) -> dict[str, Any]:
        """The figures of one network: share of the weights that are not zero, scores, CPU-seconds."""
        criterion = name if name in CRITERIA else "magnitude"
        changed = TRAINED.get(name, {})
        scores = self.scores(criterion)
        images = self.prepared.evaluator.definition.calibration_images

        def begun(candidate: Candidate) -> CompressedModel:
            plan = resolve(candidate, self.groups, scores)
            return CompressedModel(candidate, plan, self.cutting.cut(plan, images))

        candidate = self.candidate(criterion, zeros, scores if comparable(criterion) else self.scores("magnitude"))
        settings = RECIPE.model_copy(update=changed)
        finalist = Finalist(name, 0, candidate, {}, settings, begun)
        untuned = begun(candidate).module
        started = time.process_time()
        network = self.trained(finalist, steps // settings.steps)
        whole = sum(p.numel() for p in self.prepared.model.parameters())
        new = self.new_weights(finalist, network.plan, steps // settings.steps) if settings.rewind else {}
        return new | {
            "nonzero": nonzero_after(self.prepared.model, network.plan) / whole,
            "untuned": self.score(untuned),
            "tuned": self.score(network.module),
            "training_cpu_s": time.process_time() - started,
        }

    def score(self, module: nn.Module) -> float:
        """Mean over the search and the selection data: neither scores nor training have seen them."""
        sizes = {role: len(getattr(self.prepared.workload.data, role)) for role in ("search", "selection")}
        return sum(score_on(self.prepared, module, role) * size for role, size in sizes.items()) / sum(sizes.values())

    def new_weights(self, ticket: Finalist, plan: Plan, steps: int) -> dict[str, float]:
        """The score of a ticket's zeros with new random weights, trained as long as the ticket was in the end."""
        settings = RECIPE.model_copy(update={"steps": 1})
        fresh = CompressedModel(ticket.candidate, plan, renewed(self.prepared.model, plan, self.seed))
        network = self.trained(replace(ticket, settings=settings, begun=lambda _: fresh), steps)
        return {NEW: self.score(network.module)}

    def trained(self, finalist: Finalist, steps: int) -> CompressedModel:
        """The finalist behind its training. steps: of the optimizer, in each step of pruning."""
        train, settings = self.prepared.workload.data.train, finalist.settings or RECIPE
        network: CompressedModel | None = None
        with TemporaryDirectory() as folder:
            for step in range(1, settings.steps + 1):
                order = np.random.default_rng((self.seed, step)).permutation(len(train))  # type: ignore[arg-type] # map-style
                some = Subset(train, np.resize(order, steps * BATCH).tolist())
                workload = replace(self.prepared.workload, data=replace(self.prepared.workload.data, train=some))
                tuning = Tuning(replace(self.prepared, workload=workload), "cpu")
                begun = tuning.begun(finalist, step, network)
                file = Path(folder) / f"{step}.safetensors"
                network, _ = tuning.trained(begun, settings, finalist.candidate, file, _silent)
        return network or finalist.begun(finalist.candidate)


def _silent(_epoch: int, _loss: float) -> None:
    """Nobody is told."""


def markdown(folder: Path, results: list[dict[str, Any]]) -> None:
    """Print an experiment's results, the best behind tuning first where most is zero."""
    shares = sorted({result["zeros"] for result in results})
    seeds = sorted({result["seed"] for result in results})

    def of(name: str, share: float, column: str) -> list[float]:
        return [r[column] for r in results if (r["way"], r["zeros"]) == (name, share)]

    names = {result["way"] for result in results if of(result["way"], shares[-1], "tuned")}
    results += [{**r, "way": f"{r['way']}, {NEW}", "tuned": r[NEW]} for r in results if NEW in r]
    print(f"\n{folder.name}: median (range) of seeds {', '.join(map(str, seeds))}\n")
    heads = [f"{share:.0%} zeros{what}" for share in shares for what in (", untrained", "")]
    print(f"| way | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name in sorted(names, key=lambda name: -statistics.median(of(name, shares[-1], "tuned"))):
        cells: list[str] = []
        for share in shares:
            cells += [f"{statistics.median(of(name, share, 'untuned')):.3f}", spread(of(name, share, "tuned"))]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure what is missing and print the table."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--steps", type=int, help="of training (default 100)", default=100)
    parser.add_argument("--seeds", type=int, help="how many (default 3, quick 1)")
    parser.add_argument("--zeros", type=float, nargs="*", default=(0.9, 0.95, 0.98), help="shares of the weights")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    torch.set_num_threads(1)
    rules = "search_space={groups: [{methods: [weights/random], zeros: [0.0, 0.99]}]}"
    prepared = loaded_pipeline(quick=options.quick, model=options.model, overrides=[rules, *options.set])
    folder = RESULTS / f"{prepared.workload.name}-{options.steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        arms = Arms(prepared, seed)
        for zeros in options.zeros:
            for name in arms.names():
                file = folder / f"{name.replace(' ', '-')}-{zeros:g}-{seed}.json"
                if not file.is_file():
                    about = {"way": name, "seed": seed, "zeros": zeros, "steps": options.steps}
                    write_json(file, about | arms.scored(name, zeros, options.steps))
                    print(file, flush=True)
    markdown(folder, [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))])


if __name__ == "__main__":
    main()
