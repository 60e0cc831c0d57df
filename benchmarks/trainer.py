"""What the settings of the trainer are worth: the same cut networks, as many passes over the data, and the score they lead to.

Every group loses the same share of its channels by `l2`; the cut network is refitted and recalibrated as candidates of a search
are, then tuned by each recipe. Scores are of search and selection data together, in torch. A seed draws the order of the samples
and the augmentation.

The folder of an experiment in `benchmarks/results/trainer` has a JSON file for each recipe and seed: what is there is not done
again.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch

from common import add_model, arguments, loaded_pipeline, write_json
from criteria import spread
from secateur.definition import RecoverDefinition
from secateur.recovery.fine_tune import Training, fine_tune
from secateur.recovery.layers import layers_of
from sparse_training import Source, score

RESULTS = Path(__file__).parent / "results" / "trainer"
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd, warmup 0.1": {"warmup": 0.1},
    "sgd, clip 1": {"clip": 1.0},
    "sgd, ema 0.99": {"ema": 0.99},
    "sgd, ema 0.999": {"ema": 0.999},
    "adamw 0.01": {"optimizer": "adamw", "learning_rate": 0.01},
    "adamw 0.001": {"optimizer": "adamw", "learning_rate": 0.001},
    "sgd, attention 1000": {"distill": {"attention": ["layer1", "layer2", "layer3"], "attention_weight": 1000.0}},
    "sgd, attention 100": {"distill": {"attention": ["layer1", "layer2", "layer3"], "attention_weight": 100.0}},
    "sgd, attention 10": {"distill": {"attention": ["layer1", "layer2", "layer3"], "attention_weight": 10.0}},
    "sgd, hints 10": {"distill": {"hints": ["layer1", "layer2", "layer3"], "hints_weight": 10.0}},
    "sgd, hints 1": {"distill": {"hints": ["layer1", "layer2", "layer3"], "hints_weight": 1.0}},
    "sgd, hints 0.1": {"distill": {"hints": ["layer1", "layer2", "layer3"], "hints_weight": 0.1}},
    "sgd, heads 100": {"distill": {"attention": ["blocks.*.attention"], "attention_weight": 100.0}},
    "sgd, heads 10": {"distill": {"attention": ["blocks.*.attention"], "attention_weight": 10.0}},
    "sgd, hidden states 10": {"distill": {"hints": ["blocks.?"], "hints_weight": 10.0}},
    "sgd, hidden states 1": {"distill": {"hints": ["blocks.?"], "hints_weight": 1.0}},
    "adamw 0.003": {"optimizer": "adamw", "learning_rate": 0.003},
    "adamw 0.001, ema 0.99": {"optimizer": "adamw", "learning_rate": 0.001, "ema": 0.99},
}
"""Name → keys of `recover` beside those that all have; where they name inner layers, for networks that have them."""


def markdown(folder: Path) -> None:
    """Print an experiment's results, the best first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        found.setdefault((result := json.loads(file.read_text()))["recipe"], []).append(result)
    first = next(iter(found.values()))[0]
    seeds = sorted({result["seed"] for results in found.values() for result in results})
    print(
        f"\n{folder.name}: {first['macs']:.0%} of the MACs, cut {first['cut']:.3f}; seeds {', '.join(map(str, seeds))}\n"
    )
    print("| recipe | tuned: median (range) |\n|---|---|")
    for recipe, results in sorted(found.items(), key=lambda e: -statistics.median(r["tuned"] for r in e[1])):
        print(f"| {recipe} | {spread([r['tuned'] for r in results])} |")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fractions", type=float, nargs="*", default=(0.5, 0.75), help="of the channels that leave")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rules = "search_space={groups: [{methods: [l2], removed: [0.0, 0.95]}]}"
    prepared = loaded_pipeline(quick=options.quick, model=options.model, overrides=[rules, *options.set])
    base = prepared.definition.recover
    common = {key: getattr(base, key) for key in ("epochs", "batch", "learning_rate")}
    for fraction in options.fractions:
        source = Source(prepared, prepared.model, 0)
        cut, macs = source.cut("l2", fraction)
        folder = RESULTS / f"{prepared.definition.name}-{fraction:g}-{base.epochs}-epochs"
        folder.mkdir(parents=True, exist_ok=True)
        before = score(prepared, cut)
        for seed in range(options.seeds):
            for recipe, keys in RECIPES.items():
                inner = (*keys.get("distill", {}).get("attention", ()), *keys.get("distill", {}).get("hints", ()))
                if inner and not layers_of(prepared.model, inner):
                    continue
                file = folder / f"{recipe.replace(', ', '-').replace(' ', '-')}-{seed}.json"
                if file.is_file():
                    continue
                settings = RecoverDefinition(**{**common, "distill": base.distill, **keys})
                tuned = fine_tune(cut, prepared.model, prepared.workload, settings, Training(seed=seed)).module
                figures = {"macs": macs, "cut": before, "tuned": score(prepared, tuned)}
                write_json(file, {"recipe": recipe, "seed": seed} | figures)
                print(file, figures["tuned"], flush=True)
        markdown(folder)


if __name__ == "__main__":
    main()
