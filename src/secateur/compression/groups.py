"""Find the groups that can be cut, with their costs, and say of the others why not."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from secateur.compression.checks import check_model
from secateur.compression.costs import LayerCosts, layer_costs
from secateur.compression.dependency import Coupling, couplings, width_of
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
    """Trace the couplings and prove every group: without any of its channels the network computes what it does with zeros there.

    Raises ModelError where the model cannot be run, copied or traced, or where nothing can be cut.
    """
    model = model.cpu().eval()
    check_model(model, example_inputs)
    costs = layer_costs(model, example_inputs)
    found = couplings(model, example_inputs)
    groups = {coupling.root: _as_group(coupling, model, costs) for coupling in found}
    reasons = {c.root: c.problem or _nothing_to_remove(groups[c.root]) for c in found}
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


def _nothing_to_remove(group: Group) -> str | None:
    if group.width > group.least:
        return None
    pinned = "all its channels meet the zeros of a padded shortcut" if group.width > 1 else "it has one channel"
    return f"{pinned}, so none can go"


def _as_group(coupling: Coupling, model: nn.Module, costs: LayerCosts) -> Group:
    layers = {member.module for member in coupling.members}
    removable = tuple(c for c in range(coupling.width) if c not in coupling.pinned)
    return Group(
        name=coupling.root,
        layer_type=type(model.get_submodule(coupling.root)).__name__,
        members=coupling.members,
        width=coupling.width,
        removable=removable,
        parameters=sum(p.numel() for name in layers for p in model.get_submodule(name).parameters()),
        macs=sum(costs.layers.get(name, 0) for name in layers),
        least=coupling.width - len(removable) + _empties_a_layer(coupling, model),
    )


def _empties_a_layer(coupling: Coupling, model: nn.Module) -> bool:
    """Whether some layer has no channels besides those that may go: its last one has to stay."""
    return any(
        len(set(member.indices)) == width_of(model.get_submodule(member.module), member.side)
        and coupling.pinned.isdisjoint(member.roots)
        for member in coupling.members
    )
