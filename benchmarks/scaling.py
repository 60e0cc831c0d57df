"""What our own work costs per candidate, as groups and trials grow.

- The search on formulas: spaces of 10, 50 and 200 groups whose evaluation takes no time, so that all that is left is what lies
  between two evaluations: sampler, re-fitted knapsack, storage, bookkeeping; the mean before the 500th and the 1000th network,
  when the sensitivity sweep is over. Then the sampler without any warm start, before the 100th and the 1000th.
- The same at 60 dimensions, before the 500th network, over what a candidate costs.
- Real networks of 10, 50 and 200 groups (residual, equal blocks): one evaluation, per group; and their preparation, paid once.

The exponent is the slope on logarithmic axes between the smallest and the largest: 1 is linear. CPU-seconds, one thread.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from arms import run_search
from common import add_model, arguments, prepared_pipeline, table, write_json
from secateur.compression.groups import find_groups
from secateur.compression.resolution import resolve
from secateur.compression.saliency import compute_saliencies
from secateur.definition import EvaluatorDefinition, GroupRule, SearchSpaceDefinition
from secateur.evaluators import DenseModel, Evaluator, Place
from secateur.evaluators.devices import open_devices
from secateur.records import (
    CHANNELS,
    Candidate,
    DataRoles,
    Direction,
    Evaluation,
    Group,
    Job,
    Measurement,
    Plan,
    Remove,
    Workload,
)
from secateur.search.ledger import Problem
from secateur.search_spaces import UNTOUCHED, Choice, SearchSpace, build_space, rungs

OBJECTIVES: Mapping[str, Direction] = {"accuracy": "maximize", "macs": "minimize"}
WINDOW = 40
"""Trials over which a cost is averaged."""


def formula_space(groups: int, methods: tuple[str, ...]) -> SearchSpace:
    """Groups of 64 channels that may keep 8, 16, …, 64. Two methods make two dimensions of a group."""
    listed = [Group(f"layer{i}", "Conv2d", (), 64, tuple(range(64)), 1000, 1000) for i in range(groups)]
    ladders = {group.name: (UNTOUCHED, *rungs(group, CHANNELS, range(56, 0, -8))) for group in listed}
    return SearchSpace({group.name: Choice(group, methods, ladders[group.name]) for group in listed}, ())


def formula_plan(space: SearchSpace, candidate: Candidate) -> Plan:
    """A step for every group, also for those that lose nothing: the formulas go over neighbours."""
    edits = {group.name: candidate.edit(group.name) for group in space.groups}
    return Plan(
        tuple(
            Remove(f"{name} {edit.by}" if edit else name, "out", tuple(range(edit.level, 64)) if edit else ())
            for name, edit in edits.items()
        )
    )


def formula(candidate: Candidate, plan: Plan) -> Evaluation:
    """Each group hurts with the square of what it loses, some more than others; MACs go with the product of neighbours."""
    kept = [1 - len(step.indices) / 64 for step in plan.steps]
    damage = sum((1 + i % 5) * (1 - k) ** 2 for i, k in enumerate(kept)) / (3 * len(kept))
    figures = {"accuracy": 1 - damage, "damage": damage, **exact(plan)}
    measurements = {name: Measurement(value, "1", "computed") for name, value in figures.items()}
    return Evaluation(candidate, candidate.key, measurements)


def exact(plan: Plan) -> dict[str, float]:
    """What is known without evaluating: shares of a dense network."""
    kept = [1 - len(step.indices) / 64 for step in plan.steps] or [1.0]
    macs = sum(a * b for a, b in zip(kept, [1.0, *kept], strict=False)) / len(kept)
    return {"macs": macs, "parameters": macs, "nonzero": macs}


def formula_problem(space: SearchSpace) -> Problem:
    """The search for accuracy and MACs on formulas."""
    scores = torch.rand(64, generator=torch.Generator().manual_seed(0))
    saliencies = {name: dict.fromkeys(choice.methods, scores) for name, choice in space.choices.items()}
    dense = formula(space.dense(), formula_plan(space, space.dense())).measurements
    return Problem(space, OBJECTIVES, partial(formula_plan, space), exact, dense, saliencies=saliencies)


def between_evaluations(problem: Problem, trials: int) -> list[float]:
    """CPU-seconds from the end of one evaluation to the beginning of the next, for a whole search."""
    gaps: list[float] = []
    left = time.process_time()

    def work(job: Job) -> Evaluation:
        nonlocal left
        if job.fidelity.probe:
            return formula(job.candidate, job.plan)
        gaps.append(time.process_time() - left)
        evaluation = formula(job.candidate, job.plan)
        left = time.process_time()
        return evaluation

    run_search(problem, work, trials, seed=0)
    return gaps


def around(gaps: list[float], trial: int) -> float:
    """Mean cost of the `WINDOW` evaluated networks before one; fewer where the space was exhausted before it."""
    return statistics.fmean(gaps[:trial][-WINDOW:])


class Blocks(nn.Module):
    """A stem, equal residual blocks with one group each, and a linear layer."""

    def __init__(self, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(blocks))
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(blocks))
        self.head = nn.Linear(width, 10)
        for layer in self.outer:
            nn.init.normal_(layer.weight, std=0.1 / math.sqrt(blocks * 9 * width))  # the sum stays of one size

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 8, 8) → (n, 10)."""
        x = self.stem(x)
        for inner, norm, outer in zip(self.inner, self.norm, self.outer, strict=True):
            x = x + outer(F.relu(norm(inner(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@dataclass(frozen=True)
class RealCost:
    """CPU-seconds of one evaluation, median of `WINDOW // 8` candidates, and of all that comes before the first."""

    groups: int
    macs: int
    candidate_s: float
    preparation_s: float


def real_network(blocks: int) -> RealCost:
    """Prepare a network of so many groups and evaluate uniform cuts of it."""
    torch.manual_seed(0)
    model = Blocks(blocks).eval()
    parts = [TensorDataset(torch.randn(n, 3, 8, 8), torch.randint(0, 10, (n,))) for n in (64, 64, 100, 64, 64)]
    workload = Workload(
        name=f"{blocks} blocks",
        build_model=lambda: model,
        example_inputs=(torch.randn(2, 3, 8, 8),),
        data=DataRoles(*parts),
        loss=F.cross_entropy,
        score=lambda outputs, targets: (outputs.argmax(1) == targets).float(),
    )
    started = time.process_time()
    found = find_groups(model, workload.example_inputs)
    rules = [GroupRule(match="inner.*", methods=["l2"], multiple_of=2)]
    space = build_space(SearchSpaceDefinition(groups=rules), found)
    saliencies = compute_saliencies(model, space.groups, space.methods, workload)
    definition = EvaluatorDefinition(objectives={"accuracy": "maximize", "latency": "minimize"})
    place = Place(open_devices(definition, Path.cwd()))
    evaluator = Evaluator(definition, DenseModel(model, workload, found.costs), place)
    evaluator.evaluate(Job(space.dense(), Plan()))
    preparation, costs = time.process_time() - started, []
    for number in range(WINDOW // 8):
        candidate = space.uniform((1 + number) / 8, "l2")
        started = time.process_time()
        evaluation = evaluator.evaluate(Job(candidate, resolve(candidate, space.groups, saliencies)))
        costs.append(time.process_time() - started)
        if evaluation.failure is not None:
            raise SystemExit(f"{blocks} blocks: {evaluation.failure}")
    return RealCost(len(space.groups), found.costs.total, statistics.median(costs), preparation)


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Slope on logarithmic axes from the smallest to the largest."""
    return math.log(costs[-1] / costs[0]) / math.log(sizes[-1] / sizes[0])


def growth(title: str, problems: Mapping[int, Problem], early: int, late: int) -> dict[int, list[float]]:
    """Print how the time between two evaluations grows. problems: by groups. Returns the seconds at both networks, by groups."""
    costs = {groups: between_evaluations(problem, late) for groups, problem in problems.items()}
    found = {groups: [around(gaps, early), around(gaps, late)] for groups, gaps in costs.items()}
    rows = [
        [str(groups), *(f"{1e3 * c:.1f}" for c in pair), f"{exponent([early, late], pair):.2f}"]
        for groups, pair in found.items()
    ]
    slopes = [exponent(list(found), [pair[i] for pair in found.values()]) for i in (0, 1)]
    rows.append(["exponent over groups", *(f"{slope:.2f}" for slope in slopes), ""])
    table(
        title, ["groups", f"before network {early}, ms", f"before network {late}, ms", "exponent over networks"], rows
    )
    return found


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    add_model(parser)
    parser.add_argument("--trials", type=int, help="of the longest search on formulas (default 1000, quick 200)")
    options = parser.parse_args()
    sizes = [10, 50] if options.quick else [10, 50, 200]
    late = options.trials or (200 if options.quick else 1000)
    problems = {groups: formula_problem(formula_space(groups, ("l2",))) for groups in sizes}
    alone = {groups: replace(problem, warm_starts=False) for groups, problem in problems.items()}
    searching = growth("the search as it is, between two evaluations", problems, late // 2, late)
    sampling = growth("the sampler alone, between two evaluations", alone, min(100, late // 2), late)

    trial = 200 if options.quick else 500
    sixty = formula_problem(formula_space(30, ("l2", "taylor")))
    thinking = around(between_evaluations(sixty, trial), trial)
    sampler = around(between_evaluations(replace(sixty, warm_starts=False), trial), trial)
    prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=options.set)
    evaluations = []
    for fraction in (0.0, 0.125, 0.25, 0.375, 0.5, 0.625):
        uniform = prepared.space.uniform(fraction, "l2")
        started = time.process_time()
        prepared.evaluator.evaluate(Job(uniform, resolve(uniform, prepared.space.groups, saliencies)))
        evaluations.append(time.process_time() - started)
    candidate = statistics.median(evaluations[1:])  # the first one loads the data
    table(
        f"60 dimensions, before network {trial}, over a candidate of {prepared.workload.name} ({1e3 * candidate:.0f} ms)",
        ["", "ms", "of a candidate"],
        [
            [name, f"{1e3 * seconds:.1f}", f"{seconds / candidate:.1%}"]
            for name, seconds in (("the search as it is", thinking), ("the sampler alone", sampler))
        ],
    )

    networks = [real_network(blocks) for blocks in sizes]
    counts = [network.groups for network in networks]
    table(
        "one real evaluation (100 images), and what is paid once before",
        ["groups", "candidate, ms", "ms a group", "preparation, s"],
        [
            [
                str(n.groups),
                f"{1e3 * n.candidate_s:.0f}",
                f"{1e3 * n.candidate_s / n.groups:.2f}",
                f"{n.preparation_s:.1f}",
            ]
            for n in networks
        ]
        + [
            [
                "exponent",
                f"{exponent(counts, [n.candidate_s for n in networks]):.2f}",
                "",
                f"{exponent(counts, [n.preparation_s for n in networks]):.2f}",
            ]
        ],
    )
    write_json(
        options.json,
        {
            "search_s": searching,
            "sampler_s": sampling,
            "search_60_dimensions_s": thinking,
            "sampler_60_dimensions_s": sampler,
            "candidate_s": candidate,
            "networks": [vars(network) for network in networks],
        },
    )


if __name__ == "__main__":
    main()
