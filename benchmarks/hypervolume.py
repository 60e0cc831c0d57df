"""Hypervolume at equal evaluations: secateur's search, cold TPE, and the uniform family.

- secateur: baselines, sensitivity sweep, knapsack points, then TPE; what `secateur run` does.
- cold TPE: the same sampler (multivariate, grouped) on the same space, told of the dense network and of nothing else.
- uniform: the same fraction everywhere, every method, as many fractions as the budget holds. It has no seed.

The volume lies between the front and the corner that `secateur run` uses: the dense network's own latency and size, and the
largest drop of accuracy that the search allows. Latency and size count as fractions of the dense network's. Each network is
evaluated once and its figures serve all arms, so no arm profits from a lucky measurement.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import arguments, prepared_pipeline, table, write_json
from secateur.compression.saliency import Saliencies
from secateur.compression.selection import resolve
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.stages import dense_on, reference_point
from secateur.records import Candidate, Evaluation
from secateur.search.front import as_costs, hypervolume
from secateur.search.loop import Problem, search
from secateur.search.study import Study


class Judge:
    """Evaluates every network once, whoever asks."""

    def __init__(self, prepared: Prepared, saliencies: Saliencies) -> None:
        self.prepared, self.saliencies = prepared, saliencies
        self.known: dict[str, Evaluation] = {}
        self.objectives = prepared.definition.evaluator.objectives
        dense = dense_on(prepared, "search")
        self.reference = np.array(reference_point(prepared.definition, dense, []))
        self.scale = np.array([dense[n].value if d == "minimize" else 1.0 for n, d in self.objectives.items()])
        self.floor = dense["accuracy"].value - prepared.definition.drop_during_search("accuracy")

    def key(self, candidate: Candidate) -> str:
        """The network that a candidate leads to."""
        return resolve(candidate, self.prepared.space.groups, self.saliencies).key

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """A network's figures, measured at the first time of asking."""
        key = self.key(candidate)
        if key not in self.known:
            self.known[key] = self.prepared.evaluator.evaluate(candidate, self.prepared.space.groups, self.saliencies)
        return replace(self.known[key], candidate=candidate)

    def violations(self, evaluation: Evaluation) -> dict[str, float]:
        """As the pipeline tells them to the sampler."""
        return {"accuracy": self.floor - evaluation.measurements["accuracy"].value}

    def volume(self, evaluations: Sequence[Evaluation]) -> float:
        """Hypervolume of what an arm has evaluated."""
        points = as_costs([e for e in evaluations if e.failure is None], self.objectives)
        return hypervolume(points / self.scale, self.reference / self.scale)


def searched(judge: Judge, budget: int, seed: int, *, warm: bool) -> list[Evaluation]:
    """One search of ours or of cold TPE, in a storage of its own."""
    space = judge.prepared.space
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder) / "s.db", "benchmark", space.parameters(), judge.objectives, "tpe", seed)
        if not warm:
            study.enqueue(space.values(space.dense()), "dense", "dense")
        problem = Problem(space, judge.objectives, judge.key, judge.evaluate, judge.violations, warm_starts=warm)
        progress = search(problem, study, budget)
    return [t.evaluation for t in progress.trials if t.same_as is None]


def family(judge: Judge, budget: int) -> Iterator[Evaluation]:
    """The uniform family: ever finer fractions, every method, until the budget is spent or nothing new appears."""
    space = judge.prepared.space
    seen: set[str] = set()
    for step in (0.125, 0.0625, 0.03125, 0.015625):
        for fraction in np.arange(0.0, 0.8 + 1e-9, step):
            for method in space.methods:
                candidate = space.uniform(float(fraction), method)
                if len(seen) < budget and judge.key(candidate) not in seen:
                    seen.add(judge.key(candidate))
                    yield judge.evaluate(candidate)


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--evaluations", type=int, help="networks that each arm may evaluate (default 60, quick 30)")
    parser.add_argument("--seeds", type=int, help="searches per arm (default 5, quick 3)")
    options = parser.parse_args()
    budget = options.evaluations or (30 if options.quick else 60)
    seeds = range(options.seeds or (3 if options.quick else 5))
    prepared, saliencies = prepared_pipeline(quick=options.quick)
    judge = Judge(prepared, saliencies)
    uniform = list(family(judge, budget))
    volumes = {
        "secateur": [judge.volume(searched(judge, budget, s, warm=True)) for s in seeds],
        "cold TPE": [judge.volume(searched(judge, budget, s, warm=False)) for s in seeds],
        "uniform family": [judge.volume(uniform)],
    }
    ours = statistics.median(volumes["secateur"])
    names = ", ".join(judge.objectives)
    table(
        f"hypervolume ({names}) after {budget} evaluations of {prepared.workload.name}, {len(seeds)} seeds",
        ["", "median", "lowest", "highest", "secateur over it"],
        [
            [
                name,
                f"{statistics.median(v):.4f}",
                f"{min(v):.4f}",
                f"{max(v):.4f}",
                f"{ours / statistics.median(v):.2f}",
            ]
            for name, v in volumes.items()
        ],
    )
    print(f"uniform family: {len(uniform)} different networks; all arms together: {len(judge.known)} networks measured")
    write_json(options.json, {"evaluations": budget, "volumes": volumes, "uniform_networks": len(uniform)})


if __name__ == "__main__":
    main()
