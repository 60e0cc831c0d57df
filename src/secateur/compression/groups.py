"""Find the groups that can be cut, with their costs, and say of the others why not."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from secateur.compression.checks import check_model
from secateur.compression.costs import LayerCosts, layer_costs
from secateur.compression.coupling.experiment import Experiment
from secateur.compression.coupling.following import follow
from secateur.compression.coupling.units import Coupling, couplings
from secateur.compression.dependency import width_of
from secateur.compression.proof import Proof
from secateur.errors import ModelError
from secateur.records import Excluded, Group


@dataclass(frozen=True)
class FoundGroups:
    """All groups of a network: those proven right, and those kept out with the reason; and the costs of its layers."""

    groups: tuple[Group, ...]
    excluded: tuple[Excluded, ...]
    costs: LayerCosts


def find_groups(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> FoundGroups:
    """Find the couplings and prove every group: without any of its channels the network computes what it does with zeros there.

    Raises ModelError where the model cannot be run or copied, or where nothing can be cut.
    """
    model = model.cpu().eval()
    check_model(model, example_inputs)
    costs = layer_costs(model, example_inputs)
    experiment = Experiment(model, example_inputs)
    found = couplings(experiment, follow(experiment))
    groups = {coupling.name: _as_group(coupling, model, costs) for coupling in found}
    reasons = {coupling.name: coupling.problem for coupling in found}
    proof = Proof(model, example_inputs)
    proven, refuted = proof.proven([group for name, group in groups.items() if reasons[name] is None])
    reasons |= refuted
    excluded = tuple(
        Excluded(name, groups[name].layer_type, groups[name].width, reason)
        for name, reason in reasons.items()
        if reason is not None
    )
    if not proven:
        listed = "; ".join(f"{e.name}: {e.reason}" for e in excluded) or "it has no convolution or linear layer"
        raise ModelError(f"No group of this model can be cut ({listed}).")
    return FoundGroups(tuple(proven), excluded, costs)


def _as_group(coupling: Coupling, model: nn.Module, costs: LayerCosts) -> Group:
    layers = {member.module for member in coupling.members}
    return Group(
        name=coupling.name,
        layer_type=type(model.get_submodule(coupling.root)).__name__,
        members=coupling.members,
        width=coupling.width,
        removable=coupling.roots,
        parameters=sum(p.numel() for name in layers for p in model.get_submodule(name).parameters()),
        macs=sum(costs.layers.get(name, 0) for name in layers),
        least=coupling.width - len(coupling.roots) + _empties_a_layer(coupling, model),
    )


def _empties_a_layer(coupling: Coupling, model: nn.Module) -> bool:
    """Whether some layer has no channels besides those that may go: its last one has to stay."""
    return any(
        len(set(member.indices)) == width_of(model.get_submodule(member.module), member.side)
        for member in coupling.members
    )
