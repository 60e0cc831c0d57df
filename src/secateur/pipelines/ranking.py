"""Saliency scores, with a last look at the groups: they are also right for the very channels that each criterion removes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from torch import nn

from secateur.compression.block_saliency import block_saliencies
from secateur.compression.compensation.gram import Grams
from secateur.compression.criteria import CRITERIA
from secateur.compression.proof import Proof
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies, compute_saliencies, raising
from secateur.compression.transforms import TRANSFORMS
from secateur.compression.weight_saliency import weight_saliencies
from secateur.errors import ModelError, NotFinite
from secateur.pipelines.preparation import Prepared
from secateur.records import CHANNELS, Group, Workload, named, scored_as
from secateur.search_spaces import SearchSpace


def ranked(prepared: Prepared) -> Saliencies:
    """The scores of every group by every criterion of the search space; a warning names those that give no finite ones, and why.

    Half of the channels of all groups are removed by each criterion, two forward passes each. Raises ModelError where that refutes
    the proof by random channels, NotFinite where it leaves a group without a criterion, and what the criteria raise.
    """
    space, failures = prepared.space, dict[str, NotFinite]()
    grams = prepared.evaluator.cutting.grams
    saliencies = scores_of(prepared.source, space.groups, space.methods, prepared.workload, grams, failures.__setitem__)
    for choice in space.choices.values():
        if failures.keys() >= set(map(scored_as, choice.methods)):
            raise failures[scored_as(choice.methods[0])]
    for method, error in failures.items():
        logging.getLogger("secateur").warning("The criterion '%s' is left out of this run: %s", method, error)
    space = scored(space, saliencies)
    proof = Proof(prepared.source, prepared.workload.example_inputs)
    for method in [method for method in space.methods if named(method)[0] == CHANNELS]:
        candidate = space.uniform(0.5, method)
        if reason := proof.disproof(resolve(candidate, space.groups, saliencies)):
            raise ModelError(
                f"Without the channels that '{method}' ranks lowest, half of each group, the network is wrong: {reason}. Random "
                "channels had not shown it. List the groups that it concerns under `exclude` in the search space."
            )
    return saliencies


def scores_of(
    model: nn.Module,
    groups: Sequence[Group],
    methods: Iterable[str],
    workload: Workload,
    grams: Grams,
    failed: Callable[[str, NotFinite], None] = raising,
) -> Saliencies:
    """The scores of groups by all criteria that methods name. failed: told of those that give no finite ones, and why.

    A group without members has no channels that may go. Raises what the criteria raise.
    """
    criteria = {unit: list[str]() for unit in CRITERIA}
    for transform, criterion in map(named, methods):
        asked = criteria[TRANSFORMS[transform].unit]
        asked += [criterion] if criterion not in asked else []
    by_channel, blocks = ([group for group in groups if getattr(group, what)] for what in ("members", "block"))
    parts = (
        compute_saliencies(model, by_channel, criteria["channels"], workload, grams, failed),
        weight_saliencies(model, groups, criteria["weights"], workload, grams, failed),
        block_saliencies(model, blocks, criteria["residual blocks"], workload, failed),
    )
    return {
        group.name: {name: scores for part in parts for name, scores in part.get(group.name, {}).items()}
        for group in groups
    }


def scored(space: SearchSpace, saliencies: Saliencies) -> SearchSpace:
    """The space with those criteria alone that have scores."""
    return replace(
        space,
        choices={
            name: choice.offering([method for method in choice.methods if scored_as(method) in saliencies[name]])
            for name, choice in space.choices.items()
        },
    )
