"""Apply removals to a module: for good (smaller tensors) or as zeros (the reference that the proof compares with)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from secateur.compression.copies import copied, tie
from secateur.compression.removal import layer_at, remove, silence
from secateur.records import Group, Removals


def removals_of(groups: Sequence[Group], removed: Mapping[str, Sequence[int]]) -> Removals:
    """Spell out, per layer and side, which indices leave when the groups lose these root channels.

    removed: group name → root channels. Indices of several groups on one layer (a concatenation) are united; all of them
    refer to the original tensors, so the order in which groups are cut does not matter.
    """
    sides: dict[str, dict[str, set[int]]] = {"out": {}, "in": {}}
    for group in groups:
        gone = set(removed.get(group.name, ()))
        if not gone:
            continue
        for member in group.members:
            indices = {index for root, index in zip(member.roots, member.indices, strict=True) if root in gone}
            sides[member.side].setdefault(member.module, set()).update(indices)
    return Removals(
        out={name: tuple(sorted(indices)) for name, indices in sides["out"].items()},
        in_={name: tuple(sorted(indices)) for name, indices in sides["in"].items()},
        roots={name: tuple(sorted(channels)) for name, channels in removed.items() if channels},
    )


def cut(model: nn.Module, removals: Removals, *, shared: bool = False) -> nn.Module:
    """A copy of the module without the removed channels. Tensors keep dtype and device.

    Parametrized tensors (weight norm, say) of layers that lose channels become plain ones.
    shared: layers that keep all their channels share their tensors with the original, for whoever only runs the copy.
    Raises ModelError where the module cannot be copied.
    """
    smaller = _copy(model, removals) if shared else copied(model)
    _make_plain(smaller, removals)
    for name, indices in removals.out.items():
        remove(smaller, name, "out", indices)
    for name, indices in removals.in_.items():
        remove(smaller, name, "in", indices)
    tie(smaller, model)
    return smaller


@torch.no_grad()
def zeroed(model: nn.Module, removals: Removals) -> nn.Module:
    """A copy of the module, same shapes, in which the removed channels are zero where they arise and where they are read.

    For running only: layers that keep all their channels share their tensors with the original.
    """
    masked = _copy(model, removals)
    _make_plain(masked, removals)
    for name, indices in removals.in_.items():
        silence(masked, name, "in", indices)
    for name, indices in removals.out.items():
        silence(masked, name, "out", indices)
    return masked


def _copy(model: nn.Module, removals: Removals) -> nn.Module:
    """A copy that has tensors of its own only in the layers that lose channels."""
    own = {id(t) for name in {*removals.out, *removals.in_} for t in layer_at(model, name).parameters()}
    own |= {id(t) for name in removals.out for t in layer_at(model, name).buffers()}
    return copied(model, [t for t in (*model.parameters(), *model.buffers()) if id(t) not in own])


def _make_plain(model: nn.Module, removals: Removals) -> None:
    """Turn parametrized tensors of layers that lose channels into what they compute, in place: those can be cut.

    torch's own `remove_parametrizations` takes the property away from the class, which all copies of the layer share.
    """
    for name in {*removals.out, *removals.in_}:
        layer = layer_at(model, name)
        if parametrize.is_parametrized(layer):
            values = {tensor: getattr(layer, tensor) for tensor in layer.parametrizations}  # type: ignore[union-attr] # a ModuleDict, by torch's construction
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            for tensor, value in values.items():
                layer.register_parameter(tensor, nn.Parameter(value.detach().clone()))
