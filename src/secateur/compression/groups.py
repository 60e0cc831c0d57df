"""Find the groups that can be cut, prove each of them by numbers, and say of the others why not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.compression.costs import LayerCosts, layer_costs
from secateur.compression.dependency import Coupling, check_forward, couplings
from secateur.compression.surgery import cut, removals_of, zeroed
from secateur.errors import ModelError, first_line
from secateur.records import Excluded, Group

TOLERANCE = 1e-4
"""Largest difference between cut and zeroed outputs, relative to the largest output, that is rounding."""


@dataclass(frozen=True)
class FoundGroups:
    """All groups of a network: those proven right, and those kept out with the reason; and the costs of its layers."""

    groups: tuple[Group, ...]
    excluded: tuple[Excluded, ...]
    costs: LayerCosts


def find_groups(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> FoundGroups:
    """Trace the couplings and prove every group: cutting half of its channels must equal zeroing them.

    The comparison runs on an example and on noise, in evaluation mode; first for each group alone, then for all of them
    together. Raises ModelError where the model cannot be traced or where nothing can be cut.
    """
    model = model.cpu().eval()
    check_forward(model, example_inputs)
    costs = layer_costs(model, example_inputs)
    inputs = tuple(torch.cat([x[:1], _noise(x[:1])]) for x in example_inputs)
    groups: list[Group] = []
    excluded: list[Excluded] = []
    for coupling in couplings(model, example_inputs):
        group = _as_group(coupling, model, costs)
        reason = coupling.problem or _disproof([group], model, inputs)
        if reason is None:
            groups.append(group)
        else:
            excluded.append(Excluded(group.name, group.layer_type, group.width, reason))
    if groups and _disproof(groups, model, inputs) is not None:
        groups = _largest_compatible(groups, excluded, model, inputs)
    if not groups:
        listed = "; ".join(f"{e.name}: {e.reason}" for e in excluded) or "it has no convolution or linear layer"
        raise ModelError(f"No group of this model can be cut ({listed}).")
    return FoundGroups(tuple(groups), tuple(excluded), costs)


def _as_group(coupling: Coupling, model: nn.Module, costs: LayerCosts) -> Group:
    layers = {member.module for member in coupling.members}
    return Group(
        name=coupling.root,
        layer_type=type(model.get_submodule(coupling.root)).__name__,
        members=coupling.members,
        width=coupling.width,
        removable=tuple(c for c in range(coupling.width) if c not in coupling.pinned),
        parameters=sum(p.numel() for name in layers for p in model.get_submodule(name).parameters(recurse=False)),
        macs=sum(costs.layers.get(name, 0) for name in layers),
    )


def _largest_compatible(
    groups: list[Group], excluded: list[Excluded], model: nn.Module, inputs: tuple[Tensor, ...]
) -> list[Group]:
    """Groups that are right alone but not together: keep each one that agrees with all kept before it."""
    kept: list[Group] = []
    for group in groups:
        reason = _disproof([*kept, group], model, inputs)
        if reason is None:
            kept.append(group)
        else:
            excluded.append(
                Excluded(group.name, group.layer_type, group.width, f"together with other groups: {reason}")
            )
    return kept


def _disproof(groups: list[Group], model: nn.Module, inputs: tuple[Tensor, ...]) -> str | None:
    """Why these groups must not be cut, or None: the outputs of the cut and of the zeroed network agree."""
    for group in groups:
        if len(group.removable) < 2:
            pinned = "all its channels meet the zeros of a padded shortcut" if group.width > 1 else "it has one channel"
            return f"{pinned}, so none can go"
    removals = removals_of(groups, {group.name: group.removable[::2] for group in groups})
    with torch.no_grad():
        reference = zeroed(model, removals)(*inputs)
    try:
        with torch.no_grad():
            actual = cut(model, removals)(*inputs)
    except Exception as error:  # noqa: BLE001 # whatever the user's forward raises on the cut network is the reason
        return f"the model does not run without its channels: {type(error).__name__}: {first_line(error)}"
    if actual.shape != reference.shape:
        return "its channels are the model's output"
    gap = (actual - reference).abs().max().item()
    if not gap <= TOLERANCE * reference.abs().max().item():
        norm = next((m for g in groups for m in g.members if m.kind in ("layer norm", "group norm")), None)
        why = f" ('{norm.module}' normalises over these channels)" if norm else ""
        return f"removing its channels is not the same as zeroing them: outputs differ by {gap:.2g}{why}"
    return None


def _noise(example: Tensor) -> Tensor:
    """Gaussian noise in the example's shape; integers (token numbers) cannot be invented and are kept."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example.shape, generator=generator) if example.is_floating_point() else example
