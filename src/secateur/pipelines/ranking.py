"""Saliency scores, with a last look at the groups: they are also right for the very channels that each criterion removes."""

from __future__ import annotations

from secateur.compression.proof import Proof
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies, compute_saliencies
from secateur.errors import ModelError
from secateur.pipelines.preparation import Prepared


def ranked(prepared: Prepared) -> Saliencies:
    """The scores of every group by every criterion of the search space.

    Half of the channels of all groups are removed by each criterion, two forward passes each. Raises ModelError where that refutes
    the proof by random channels, and what the criteria raise.
    """
    space = prepared.space
    grams = prepared.evaluator.cutting.grams
    saliencies = compute_saliencies(prepared.model, space.groups, space.methods, prepared.workload, grams=grams)
    proof = Proof(prepared.model, prepared.workload.example_inputs)
    for method in space.methods:
        candidate = space.uniform(0.5, method)
        if reason := proof.disproof(resolve(candidate, space.groups, saliencies)):
            raise ModelError(
                f"Without the channels that '{method}' ranks lowest, half of each group, the network is wrong: {reason}. Random "
                "channels had not shown it. List the groups that it concerns under `exclude` in the search space."
            )
    return saliencies
