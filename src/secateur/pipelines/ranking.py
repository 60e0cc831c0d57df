"""Saliency scores, with a last look at the groups: they are also right for the very channels that each criterion removes."""

from __future__ import annotations

import logging
from dataclasses import replace

from secateur.compression.block_saliency import block_saliencies
from secateur.compression.proof import Proof
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies, compute_saliencies
from secateur.compression.transforms import TRANSFORMS, Unit
from secateur.compression.weight_saliency import weight_saliencies
from secateur.errors import ModelError, NotFinite
from secateur.pipelines.preparation import Prepared
from secateur.records import CHANNELS, named, scored_as
from secateur.search_spaces import SearchSpace


def ranked(prepared: Prepared) -> Saliencies:
    """The scores of every group by every criterion of the search space; a warning names those that give no finite ones, and why.

    Half of the channels of all groups are removed by each criterion, two forward passes each. Raises ModelError where that refutes
    the proof by random channels, NotFinite where it leaves a group without a criterion, and what the criteria raise.
    """
    space, failures = prepared.space, dict[str, NotFinite]()
    grams = prepared.evaluator.cutting.grams
    model, workload = prepared.model, prepared.workload
    by_channel = [choice.group for choice in space.choices.values() if CHANNELS in choice.transforms]
    blocks = [group for group in space.groups if group.block]
    criteria: dict[Unit, list[str]] = {"channels": [], "weights": [], "residual blocks": []}
    for transform, criterion in map(named, space.methods):
        asked = criteria[TRANSFORMS[transform].unit]
        asked += [criterion] if criterion not in asked else []
    of_channels = criteria["channels"]
    parts = (
        compute_saliencies(model, by_channel, of_channels, workload, grams, failures.__setitem__),
        weight_saliencies(model, space.groups, criteria["weights"], workload, grams, failures.__setitem__),
        block_saliencies(model, blocks, criteria["residual blocks"], workload, failures.__setitem__),
    )
    saliencies = {
        group.name: {name: scores for part in parts for name, scores in part.get(group.name, {}).items()}
        for group in space.groups
    }
    for choice in space.choices.values():
        if failures.keys() >= set(map(scored_as, choice.methods)):
            raise failures[scored_as(choice.methods[0])]
    for method, error in failures.items():
        logging.getLogger("secateur").warning("The criterion '%s' is left out of this run: %s", method, error)
    space = scored(space, saliencies)
    proof = Proof(prepared.model, prepared.workload.example_inputs)
    for method in [method for method in of_channels if method in space.methods]:
        candidate = space.uniform(0.5, method)
        if reason := proof.disproof(resolve(candidate, space.groups, saliencies)):
            raise ModelError(
                f"Without the channels that '{method}' ranks lowest, half of each group, the network is wrong: {reason}. Random "
                "channels had not shown it. List the groups that it concerns under `exclude` in the search space."
            )
    return saliencies


def scored(space: SearchSpace, saliencies: Saliencies) -> SearchSpace:
    """The space with those criteria alone that have scores."""
    return replace(
        space,
        choices={
            name: choice.offering([method for method in choice.methods if scored_as(method) in saliencies[name]])
            for name, choice in space.choices.items()
        },
    )
