"""Budgets that no cut can keep, explained before any long work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.errors import DefinitionError, EvaluationFailed
from secateur.pipelines.limits import SCORES
from secateur.pipelines.preparation import Prepared
from secateur.records import Goal, Measurement
from secateur.search.goals import unreachable

SHOWN = 3
"""Groups that a message names."""


def check_budgets(
    prepared: Prepared, saliencies: Saliencies, goals: Sequence[Goal], dense: Mapping[str, Measurement]
) -> None:
    """Measure the smallest network of the space by each kind of cut: which of them leaves least depends on the cost.

    Raises DefinitionError where even the best of them misses a goal on a cost, with the nearest value in reach and the groups that
    hold most of what is left.
    """
    costs = [goal for goal in goals if goal.sense == "at_most" and goal.metric not in SCORES]
    if not costs:
        return
    space, evaluator = prepared.space, prepared.evaluator
    smallest: dict[str, Measurement] = {}
    names = list({goal.metric for goal in costs})
    for transform in space.transforms:
        candidate = space.smallest(transform)
        plan = resolve(candidate, space.groups, saliencies)
        try:
            compressed = evaluator.compress(candidate, plan)
            network = evaluator.files.rewritten(compressed.module, prepared.costs.after(plan))
            measured = evaluator.measure(network, "search", names)
        except EvaluationFailed:
            return  # what one candidate cannot be measured for is no proof
        smallest |= {n: m for n, m in measured.items() if n not in smallest or m.value < smallest[n].value}
    for goal, value in unreachable(costs, smallest):
        base = dense[goal.metric].value
        definition = prepared.definition.evaluator
        raise DefinitionError(
            f"{definition.where('constraints', goal.metric)}: no network of this search space has {goal.text}: the smallest one "
            f"has {goal.metric} {value:.4g} {smallest[goal.metric].unit} ({value / base:.0%} of the dense model's {base:.4g}); the "
            f"limit is {goal.limit:.4g}. What is left of it: {_binding(prepared, saliencies)}. Allow more there (`removed`, "
            f"`at_least`, `exclude`, `multiple_of` in the search space), or set 'at_most: {value * 1.02:.4g}' or more."
        )


def _binding(prepared: Prepared, saliencies: Saliencies) -> str:
    """The groups whose layers hold most of the smallest network's MACs."""
    space = prepared.space
    plan = resolve(space.smallest(), space.groups, saliencies)
    total = prepared.costs.after(plan)
    shares = []
    for group in (group for group in space.groups if group.members):
        narrowest = space.choices[group.name].widths[-1]
        layers = {member.module for member in group.members if member.side == "out"}
        macs = sum(prepared.costs.layer_after(name, plan) for name in layers)
        shares.append((macs / total, f"'{group.name}' ({narrowest} of {group.width} channels must stay)"))
    whole = [
        (prepared.costs.layer_after(e.name, plan) / total, f"'{e.name}' (whole: {e.reason})") for e in space.excluded
    ]
    largest = sorted(shares + whole, reverse=True)[:SHOWN]
    return ", ".join(f"{share:.0%} of the MACs in {name}" for share, name in largest)
