"""Multiply-accumulates and parameters of a network, for one sample.

MACs are counted by torch's own FLOP counter on the dense network, layer by layer; those of a cut network follow exactly,
because a convolution or linear layer's count is proportional to the input and to the output channels that stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from secateur.compression.copies import viewed
from secateur.compression.coupling.layers import RECURRENT, layer_of
from secateur.compression.masks import count_of
from secateur.compression.removal import lost, parameters_at
from secateur.records import Bypass, Group, Plan
from secateur.workloads.pytrees import PyTree, call, rows


@dataclass(frozen=True)
class LayerCosts:
    """layers: layer name → MACs. other: MACs outside convolutions and linear layers (attention, plain matrix products).

    inside: module → those of `other` that it does, for modules with layers inside.
    """

    layers: dict[str, int]
    widths_out: dict[str, int]
    widths_in: dict[str, int]
    other: int
    inside: dict[str, int]

    @property
    def total(self) -> int:
        """MACs of the dense network."""
        return sum(self.layers.values()) + self.other

    def after(self, plan: Plan) -> int:
        """MACs of the network once cut. Work outside convolutions and linear layers counts as before, but in bypassed blocks."""
        other = self.other - sum(self.inside.get(block, 0) for block in plan.bypassed)
        return round(other + sum(self.layer_after(name, plan) for name in self.layers))

    def layer_after(self, name: str, plan: Plan) -> float:
        """MACs of one layer once cut; 0 for a layer that does none."""
        if name not in self.layers or plan.leaves_out(name):
            return 0.0
        left_out = _kept(self.widths_out[name], plan.removed["out"].get(name))
        return self.layers[name] * left_out * _kept(self.widths_in[name], plan.removed["in"].get(name))


def parameters_after(model: nn.Module, plan: Plan) -> int:
    """Elements of all parameters of the network once cut, without cutting it. model: the dense one."""
    gone: dict[str, dict[int, int]] = {}
    for step in plan.removals:
        for tensor, axis, count in lost(model, step.layer, step.side, len(step.indices)):
            gone.setdefault(tensor, {})[axis] = count
    narrowed = {*plan.losing}
    total = 0
    held = list[Tensor]()  # a computed tensor that is gone gives its id to the next
    seen = set[
        tuple[int, tuple[int, ...]]
    ]()  # a tied tensor counts twice where one of its places is cut and the other is not
    for name, layer in model.named_modules():
        if plan.leaves_out(name):
            continue
        parameters = dict(layer.named_parameters(name, recurse=False))
        if name in narrowed and parametrize.is_parametrized(layer):
            # the cut makes these tensors plain
            seen.update((id(parameter), parameter.shape) for parameter in layer.parametrizations.parameters())
            parameters |= {f"{name}.{tensor}": getattr(layer, tensor) for tensor in layer.parametrizations}
        for key, parameter in parameters.items():
            left = tuple(size - gone.get(key, {}).get(axis, 0) for axis, size in enumerate(parameter.shape))
            if (id(parameter), left) not in seen:
                seen.add((id(parameter), left))
                held.append(parameter)
                total += math.prod(left)
    return total


def nonzero_after(model: nn.Module, plan: Plan) -> int:
    """The same without those that masks set to zero."""
    return parameters_after(model, plan) - sum(count_of(mask) for mask in plan.masks)


def within_reach(model: nn.Module, groups: Iterable[Group], costs: LayerCosts) -> tuple[float, float]:
    """The shares of the parameters and of the MACs that lie in layers from which some group takes channels, weights, or all."""
    groups = tuple(groups)
    blocks = Plan(tuple(Bypass(group.name) for group in groups if group.block))
    layers = {member.module for group in groups for member in group.members}
    layers |= {weights.layer for group in groups for weights in group.weights}
    layers |= {name for name, _ in model.named_modules() if blocks.leaves_out(name)}
    reached = {parameter for name in layers for parameter in parameters_at(model, name)}
    macs = sum(costs.layers.get(name, 0) for name in layers)
    return sum(p.numel() for p in reached) / parameter_count(model), macs / (costs.total or 1)


def _kept(width: int, removed: tuple[int, ...] | None) -> float:
    return 1.0 if removed is None else (width - len(removed)) / width


def layer_costs(model: nn.Module, example_inputs: PyTree) -> LayerCosts:
    """Count the MACs of every convolution and linear layer with one forward pass of one sample."""
    counted = viewed(model).eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(counted, rows(example_inputs, slice(1)))
    by_module = counter.get_flop_counts()
    prefix = type(counted).__name__
    layers, widths_out, widths_in = {}, {}, {}
    for name, module in counted.named_modules():
        layer = layer_of(name, module)
        if layer is not None and layer.reads and layer.computes and layer.kind != RECURRENT:
            widths_out[name], widths_in[name] = layer.writes, layer.reads
            layers[name] = sum(by_module.get(f"{prefix}.{name}", {}).values()) // 2
    other = counter.get_total_flops() // 2 - sum(layers.values())
    inside = {}
    for name, module in counted.named_modules() if other else ():
        if name and any(module.children()):
            own = sum(macs for layer, macs in layers.items() if layer.startswith(f"{name}."))
            inside[name] = sum(by_module.get(f"{prefix}.{name}", {}).values()) // 2 - own
    return LayerCosts(layers, widths_out, widths_in, other, inside)


def parameter_count(model: nn.Module) -> int:
    """Elements of all parameters, buffers not included; shared ones count once."""
    return sum(p.numel() for p in model.parameters())
