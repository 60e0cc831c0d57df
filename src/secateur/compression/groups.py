"""Find the groups that can be cut, with their costs, and say of the others why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from torch import nn

from secateur.compression.blocks import residual_blocks
from secateur.compression.checks import check_model
from secateur.compression.costs import LayerCosts, layer_costs
from secateur.compression.coupling.balance import balanced
from secateur.compression.coupling.counting import counting, numbers_of
from secateur.compression.coupling.experiment import Experiment
from secateur.compression.coupling.following import follow
from secateur.compression.coupling.units import Coupling, couplings
from secateur.compression.masks import unwritten, weights_of
from secateur.compression.proof import Proof, build_of
from secateur.compression.removal import parameters_at, width_of
from secateur.errors import ModelError
from secateur.records import Excluded, Group
from secateur.workloads.pytrees import PyTree


@dataclass(frozen=True)
class FoundGroups:
    """All groups of a network: those proven right, and those kept out with the reason; and the costs of its layers.

    fixed: layers whose channels must stay, each a group of weights that may become zero. blocks: residual blocks that may be left
    out.
    """

    groups: tuple[Group, ...]
    excluded: tuple[Excluded, ...]
    costs: LayerCosts
    fixed: tuple[Group, ...] = ()
    blocks: tuple[Group, ...] = ()


FOLLOWING = 0.3
"""Share of the time that the couplings take; the rest is the proof's."""
Watch = Callable[[str, float], object]
"""Told what is being done, and what share of everything is done."""


def find_groups(model: nn.Module, example_inputs: PyTree, watch: Watch = lambda _, __: None) -> FoundGroups:
    """Find the couplings and prove every group: without any of its channels the network computes what it does with zeros there.

    watch: is told how far it is. Raises ModelError where the model cannot be run or copied, or where nothing can be cut.
    """
    model = model.cpu().eval()
    check_model(model, example_inputs)
    costs = layer_costs(model, example_inputs)
    found = _coupled(
        model, example_inputs, lambda share: watch("following channels through the model", FOLLOWING * share)
    )
    proof = Proof(model, example_inputs, lambda share: watch("proving the groups", FOLLOWING + (1 - FOLLOWING) * share))
    proven, reasons = _proven(found, model, costs, proof)
    excluded = tuple(
        Excluded(c.name, type(model.get_submodule(c.root)).__name__, c.width, reasons[c.name])
        for c in found
        if c.name in reasons
    )
    if not proven:
        listed = "; ".join(f"{e.name}: {e.reason}" for e in excluded) or "it has no convolution or linear layer"
        raise ModelError(f"No group of this model can be cut ({listed}).")
    blocks = residual_blocks(model, example_inputs, costs, proof)
    return FoundGroups(tuple(proven), excluded, costs, tuple(_fixed(proven, model, costs)), blocks)


def _coupled(model: nn.Module, example_inputs: PyTree, watch: Callable[[float], object]) -> list[Coupling]:
    experiment = Experiment(model, example_inputs)
    return couplings(experiment, follow(experiment, watch))


def _proven(
    found: Sequence[Coupling], model: nn.Module, costs: LayerCosts, proof: Proof
) -> tuple[list[Group], dict[str, str]]:
    """The groups that may be cut, in any combination, in network order; and why the others stay whole, by name."""

    def as_group(coupling: Coupling) -> Group:
        return _as_group(coupling, model, costs)

    reasons = {coupling.name: coupling.problem for coupling in found if coupling.problem is not None}
    claims = _counted([coupling for coupling in found if coupling.problem is None], model, as_group, proof)
    proven, refuted = proof.proven([as_group(coupling) for coupling in claims])
    wrong = [coupling for coupling in found if coupling.name in refuted]
    mended: dict[str, Coupling] = {}
    for proposal, replaced in chain(counting(wrong, model, mended.values()), balanced(wrong)):
        names = {coupling.name for coupling in replaced}
        if names <= refuted.keys() and proof.proven([as_group(proposal)])[0]:
            mended[proposal.name] = proposal
            refuted = {name: reason for name, reason in refuted.items() if name not in names}
    if mended:
        known = {group.name: group for group in proven} | {name: as_group(c) for name, c in mended.items()}
        proven, others = proof.proven([known[coupling.name] for coupling in found if coupling.name in known])
        refuted |= others
    return proven, reasons | refuted


def _counted(
    claims: Sequence[Coupling], model: nn.Module, as_group: Callable[[Coupling], Group], proof: Proof
) -> Iterator[Coupling]:
    """The same groups; units of several channels have the numbers that the first group that is built alike turns out to need."""
    needed: dict[object, frozenset[str]] = {}
    for coupling in claims:
        several = any(len(member.indices) > len(coupling.roots) for member in coupling.members)
        proposals = (
            [coupling, *(proposal for proposal, _ in counting([coupling], model, ()))] if several else [coupling]
        )
        build = build_of(as_group(coupling))
        if len(proposals) > 1 and build not in needed:
            right = next((p for p in proposals if proof.alone(as_group(p)) is None), coupling)
            needed[build] = numbers_of(right)
        yield next((p for p in proposals if numbers_of(p) == needed.get(build, frozenset())), coupling)


def _as_group(coupling: Coupling, model: nn.Module, costs: LayerCosts) -> Group:
    layers = {member.module for member in coupling.members}
    return Group(
        name=coupling.name,
        layer_type=type(model.get_submodule(coupling.root)).__name__,
        members=coupling.members,
        width=coupling.width,
        removable=coupling.roots,
        parameters=sum(p.numel() for p in {p for name in layers for p in parameters_at(model, name)}),
        macs=sum(costs.layers.get(name, 0) for name in layers),
        least=coupling.width - len(coupling.roots) + _empties_a_layer(coupling, model),
        weights=weights_of(model, coupling.members),
    )


def _fixed(proven: Sequence[Group], model: nn.Module, costs: LayerCosts) -> Iterator[Group]:
    taken = {group.name for group in proven}
    for weights in unwritten(model, proven):
        layer = model.get_submodule(weights.layer)
        name = f"{weights.layer}:{weights.rows[0]}" if weights.layer in taken else weights.layer
        own = len(weights.rows) * weights.inputs * weights.kernel
        share = own / cast("nn.Parameter", layer.weight).numel()
        macs = round(costs.layers.get(weights.layer, 0) * share)
        width = len(weights.rows)
        yield Group(name, type(layer).__name__, (), width, (), own, macs, least=width, weights=(weights,))


def _empties_a_layer(coupling: Coupling, model: nn.Module) -> bool:
    """Whether some layer has no channels besides those that may go: its last one has to stay."""
    return any(len(set(member.indices)) == width_of(model, member.module, member.side) for member in coupling.members)
