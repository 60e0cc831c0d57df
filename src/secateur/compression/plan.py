"""Plans and modules: a plan carried out for good (smaller tensors), or as zeros (the reference that proofs compare with)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateur.compression.copies import copied, tie
from secateur.compression.gates import gated
from secateur.compression.masks import zeroed
from secateur.compression.removal import layer_at, remove, silence
from secateur.records import Bypass, Mask, Plan, Remove, Side, Step


class Bypassed(nn.Module):
    """What stands in the place of a block that is left out."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """Its first argument, as it is; a block may be given more, a mask say."""
        return x


def is_bypassed(model: nn.Module) -> bool:
    """Whether some block of a module has been left out."""
    return any(isinstance(module, Bypassed) for module in model.modules())


def united(steps: Iterable[Step]) -> Plan:
    """A plan of steps in any order. What several of them take from one side of one layer (a concatenation) becomes one step.

    Bypasses stand first and masks last; steps in a block that is left out are left out with it.
    All indices refer to the original tensors, so it does not matter in which order groups lose channels.
    """
    sides: dict[Side, dict[str, set[int]]] = {"out": {}, "in": {}}
    masks: list[Mask] = []
    steps = tuple(steps)
    blocks = Plan(tuple(step for step in steps if isinstance(step, Bypass)))
    for step in steps:
        if blocks.leaves_out(step.layer):
            continue
        if isinstance(step, Mask):
            masks.append(step)
        elif isinstance(step, Remove):
            sides[step.side].setdefault(step.layer, set()).update(step.indices)
    removals = [
        Remove(layer, side, tuple(sorted(gone))) for side, layers in sides.items() for layer, gone in layers.items()
    ]
    return Plan((*blocks.steps, *removals, *masks))


def apply(model: nn.Module, plan: Plan, *, shared: bool = False) -> nn.Module:
    """A copy of the module to which the plan has been done. Tensors keep dtype and device.

    Parametrized tensors (weight norm, say) of layers that lose channels become plain ones. New gates are open.
    shared: layers that keep all their channels share their tensors with the original, for whoever only runs the copy.
    Raises ModelError where the module cannot be copied.
    """
    theirs = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    smaller = copied(model, theirs.values())  # cutting a tensor makes a new one
    for name in plan.bypassed:
        smaller.set_submodule(name, Bypassed())
    _make_plain(smaller, plan)
    _mask(smaller, plan)
    for step in plan.removals:
        remove(smaller, step.layer, step.side, step.indices)
    tie(smaller, model)
    gated(smaller, plan.gates)
    if shared:
        return smaller
    return copied(smaller, [t for t in (*smaller.parameters(), *smaller.buffers()) if id(t) not in theirs])


@torch.no_grad()
def reference(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the module, same shapes, in which removed channels are zero where they arise and where they are read.

    Bypassed blocks stand there and hand on what they are given; a new gate, which is open, changes nothing and is not there.
    For running only: layers that keep all their channels share their tensors with the original.
    """
    masked = _copy(model, plan)
    _make_plain(masked, plan)
    _mask(masked, plan)
    for name in plan.bypassed:
        masked.get_submodule(name).forward = lambda x, *_, **__: x  # of this copy alone
    for step in reversed(plan.removals):  # readers first: what silences a norm replaces the layer
        silence(masked, step.layer, step.side, step.indices)
    return masked


def _copy(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy that has tensors of its own only in the layers that lose channels."""
    own = {id(t) for step in plan.removals for t in layer_at(model, step.layer).parameters()}
    own |= {id(t) for name in plan.removed["out"] for t in layer_at(model, name).buffers()}
    return copied(model, [t for t in (*model.parameters(), *model.buffers()) if id(t) not in own])


def _mask(model: nn.Module, plan: Plan) -> None:
    """Set weights to zero, in place: masks refer to the original tensors, so this comes before anything leaves."""
    for mask in plan.masks:
        zeroed(layer_at(model, mask.layer), mask)


def _make_plain(model: nn.Module, plan: Plan) -> None:
    """Turn parametrized tensors of layers that lose channels or weights into what they compute, in place: those can be cut.

    torch's own `remove_parametrizations` takes the property away from the class, which all copies of the layer share.
    """
    for name in {*plan.losing}:
        layer = layer_at(model, name)
        if parametrize.is_parametrized(layer):
            values = {tensor: getattr(layer, tensor) for tensor in layer.parametrizations}  # type: ignore[union-attr] # a ModuleDict, by torch's construction
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            for tensor, value in values.items():
                layer.register_parameter(tensor, nn.Parameter(value.detach().clone()))
