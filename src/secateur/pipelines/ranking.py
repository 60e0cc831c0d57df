"""Saliency scores, with a last look at the groups: they are also right for the very channels that each criterion removes."""

from __future__ import annotations

import logging
from dataclasses import replace

from secateur.compression.proof import Proof
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies, compute_saliencies
from secateur.errors import ModelError, NotFinite
from secateur.pipelines.preparation import Prepared
from secateur.search_spaces import SearchSpace


def ranked(prepared: Prepared) -> Saliencies:
    """The scores of every group by every criterion of the search space; a warning names those that give no finite ones, and why.

    Half of the channels of all groups are removed by each criterion, two forward passes each. Raises ModelError where that refutes
    the proof by random channels, NotFinite where it leaves a group without a criterion, and what the criteria raise.
    """
    space, failures = prepared.space, dict[str, NotFinite]()
    grams = prepared.evaluator.cutting.grams
    saliencies = compute_saliencies(
        prepared.model, space.groups, space.methods, prepared.workload, grams, failures.__setitem__
    )
    for choice in space.choices.values():
        if failures.keys() >= set(choice.methods):
            raise failures[choice.methods[0]]
    for method, error in failures.items():
        logging.getLogger("secateur").warning("The criterion '%s' is left out of this run: %s", method, error)
    space = scored(space, saliencies)
    proof = Proof(prepared.model, prepared.workload.example_inputs)
    for method in space.methods:
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
            name: replace(choice, methods=tuple(method for method in choice.methods if method in saliencies[name]))
            for name, choice in space.choices.items()
        },
    )
