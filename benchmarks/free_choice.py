"""What the free choice of methods adds: the volume of a search that chooses a method per group, and of one with each method alone.

Each arm is secateur's own search with the same number of evaluations, the same groups and the same steps; only the methods differ.
Two questions: kinds of cut (channels, single weights, patterns of weights) and criteria of channels.

MACs stand for latency, of which they are the exact part, so that a busy machine disturbs nothing: zeros save none. Where MACs are
an objective, a method of single weights alone stays on the edge of the volume: its volume is 0 by definition, and it is left out.

Two volumes: of all that was evaluated, by its scores on search data; and of the `MEMBERS` networks that make most of that, scored
again on selection data, which no search has seen. A seed is the search's; its arms are paired by it.

Each experiment has a folder in `benchmarks/results/free_choice`, and there each arm and seed a JSON file: what is there is not done
again, and the same command goes on after it was stopped. `--keep` also keeps every network's figures, for all arms.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from arms import run_search
from common import add_model, arguments, prepared_pipeline, write_json
from judging import Judge
from secateur.records import Evaluation, Job

RESULTS = Path(__file__).parent / "results" / "free_choice"
CHANNELS = ("l2", "taylor", "obs", "fpgm")
ZEROS = ("weights/magnitude", "weights/lamp", "weights/obs", "n_m/magnitude")
FREE = {
    "any kind of cut": ("l2", "taylor", "obs", *ZEROS),  # search_spaces/cnn_mixed.yaml
    "any criterion of channels": CHANNELS,
}
"""The arms that may choose → their methods; every method alone is an arm as well."""
OBJECTIVES = {
    "macs": "{accuracy: maximize, macs: minimize, download: minimize}",
    "download": "{accuracy: maximize, download: minimize}",
}
MEMBERS = 5
"""Networks of a front that are scored on selection data."""
COLUMNS = ("search", "selection")


class Probes:
    """What cuts of single groups do to the outputs: the same for all searches, so measured once."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.known = judge, dict[str, Evaluation]()

    def of(self, job: Job) -> Evaluation:
        """The figures of one of them."""
        if job.plan.key not in self.known:
            self.known[job.plan.key] = self.judge.prepared.evaluator.probe(job)
        return self.known[job.plan.key]


def searched(judge: Judge, on_selection: Judge, probes: Probes, budget: int, seed: int) -> dict[str, Any]:
    """The figures of one search."""
    evaluations = list[Evaluation]()

    def work(job: Job) -> Evaluation:
        if job.fidelity.probe:
            return probes.of(job)
        evaluations.append(judge.evaluate(job.candidate).evaluation)
        return evaluations[-1]

    run_search(judge.problem, work, budget, seed)
    chosen = judge.chosen(evaluations, MEMBERS)
    again = [on_selection.evaluate(evaluation.candidate).evaluation for evaluation in chosen]
    used = [edit.method for evaluation in chosen for edits in evaluation.candidate.edits.values() for edit in edits]
    return {
        "evaluations": len(evaluations),
        "search": judge.volume(evaluations),
        "selection": on_selection.volume(again),
        "methods": {method: used.count(method) for method in sorted(set(used))},
        "front": [{name: e.measurements[name].value for name in judge.objectives} for e in again],
    }


def interval(values: list[float]) -> str:
    """Mean with its 95 % interval by Student's t."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{statistics.mean(values):+.4f} ({statistics.mean(values) - half:+.4f} to {statistics.mean(values) + half:+.4f})"


def markdown(folder: Path) -> None:
    """Print an experiment: each arm's volumes, and what each free arm has over each of its methods, seed by seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        found.setdefault(result["arm"], {})[result["seed"]] = result

    def volumes(arm: str, column: str) -> list[float]:
        return [result[column] for _, result in sorted(found[arm].items())]

    print(f"\n{folder.name}\n\n| arm | {' | '.join(f'{c}: median (range)' for c in COLUMNS)} |\n|{'---|' * 3}")
    for arm in sorted(found, key=lambda arm: -statistics.median(volumes(arm, "selection"))):
        spreads = ((statistics.median(v), min(v), max(v)) for v in (volumes(arm, column) for column in COLUMNS))
        print(f"| {arm} | {' | '.join(f'{m:.4f} ({low:.4f}–{high:.4f})' for m, low, high in spreads)} |")
    print(f"\n| free minus | {' | '.join(f'{c}: mean (95 %)' for c in COLUMNS)} |\n|{'---|' * 3}")
    for free, methods in FREE.items():
        for method in [method for method in methods if {free, method} <= found.keys()]:
            seeds = sorted(found[free].keys() & found[method].keys())
            pairs = ([found[free][s][c] - found[method][s][c] for s in seeds] for c in COLUMNS)
            print(f"| {free} − {method} | {' | '.join(map(interval, pairs))} |")


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = arguments(__doc__)
    add_model(parser)
    parser.add_argument(
        "--objectives", choices=sorted(OBJECTIVES), default="macs", help="besides accuracy and download"
    )
    parser.add_argument("--evaluations", type=int, default=30, help="networks that each search may evaluate")
    parser.add_argument("--seeds", type=int, help="searches per arm (default 5, quick 2)")
    options = parser.parse_args()
    single = CHANNELS if options.objectives == "macs" else (*CHANNELS, *ZEROS)
    arms = {**FREE, **{method: (method,) for method in single}}
    rule = "multiple_of: 8, at_least: 8, removed: [0.0, 0.8], zeros: [0.0, 0.95], patterns: ['2:4']"
    space = f"search_space={{groups: [{{methods: [{', '.join((*CHANNELS, *ZEROS))}], {rule}}}]}}"
    objectives = f"evaluator.objectives={OBJECTIVES[options.objectives]}"
    prepared, saliencies = prepared_pipeline(
        quick=options.quick, model=options.model, overrides=[space, objectives, *options.set]
    )
    judge = Judge(prepared, saliencies, options.keep)
    on_selection, probes = judge.on_selection(), Probes(judge)
    folder = RESULTS / f"{prepared.workload.name}-{options.objectives}-{options.evaluations}"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds or (2 if options.quick else 5)):
        for arm, methods in arms.items():
            file = folder / f"{arm.replace(' ', '-').replace('/', '-')}-{seed}.json"
            if not file.is_file():
                figures = searched(judge.offering(methods), on_selection, probes, options.evaluations, seed)
                write_json(file, {"arm": arm, "seed": seed} | figures)
                print(file.name, f"{figures['search']:.4f} {figures['selection']:.4f}", flush=True)
    markdown(folder)


if __name__ == "__main__":
    main()
