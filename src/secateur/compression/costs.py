"""Multiply-accumulates and parameters of a network, for one sample.

MACs are counted by torch's own FLOP counter on the dense network, layer by layer; those of a cut network follow exactly,
because a convolution or linear layer's count is proportional to the input and to the output channels that stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from secateur.compression.copies import copied
from secateur.records import Removals


@dataclass(frozen=True)
class LayerCosts:
    """layers: layer name → MACs. other: MACs outside convolutions and linear layers (attention, plain matrix products)."""

    layers: dict[str, int]
    widths_out: dict[str, int]
    widths_in: dict[str, int]
    other: int

    @property
    def total(self) -> int:
        """MACs of the dense network."""
        return sum(self.layers.values()) + self.other

    def after(self, removals: Removals) -> int:
        """MACs of the network once cut. Work outside convolutions and linear layers counts as before."""
        return round(self.other + sum(self.layer_after(name, removals) for name in self.layers))

    def layer_after(self, name: str, removals: Removals) -> float:
        """MACs of one layer once cut; 0 for a layer that does none."""
        if name not in self.layers:
            return 0.0
        left_out = _kept(self.widths_out[name], removals.out.get(name))
        return self.layers[name] * left_out * _kept(self.widths_in[name], removals.in_.get(name))


def parameters_after(model: nn.Module, removals: Removals) -> int:
    """Elements of all parameters of the network once cut, without cutting it. model: the dense one."""
    total = 0
    seen: dict[int, Tensor] = {}  # the tensors are held: a computed one that is gone gives its id to the next
    for name, layer in model.named_modules():
        touched = name in removals.out or name in removals.in_
        gone_out, gone_in = len(removals.out.get(name, ())), len(removals.in_.get(name, ()))
        transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd | nn.Embedding)
        parameters = list(layer.parameters(recurse=False))
        if touched and parametrize.is_parametrized(layer):  # the cut makes these tensors plain
            seen.update({id(parameter): parameter for parameter in layer.parametrizations.parameters()})
            parameters += [getattr(layer, tensor) for tensor in layer.parametrizations]
        for parameter in parameters:
            if id(parameter) in seen:
                continue
            seen[id(parameter)] = parameter
            shape = list(parameter.shape)
            sides = (gone_in, gone_out) if transposed and len(shape) > 1 else (gone_out, gone_in)
            for axis, gone in zip(range(min(2, len(shape))), sides, strict=False):
                if shape[axis] > gone:  # the second axis of a depthwise weight is one: nothing leaves there
                    shape[axis] -= gone
            total += math.prod(shape)
    return total


def _kept(width: int, removed: tuple[int, ...] | None) -> float:
    return 1.0 if removed is None else (width - len(removed)) / width


def layer_costs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> LayerCosts:
    """Count the MACs of every convolution and linear layer with one forward pass of one sample."""
    sample = tuple(x[:1] for x in example_inputs)
    counted = copied(model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(*sample)
    by_module = counter.get_flop_counts()
    prefix = type(counted).__name__
    layers, widths_out, widths_in = {}, {}, {}
    for name, layer in counted.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            widths_out[name], widths_in[name] = layer.out_channels, layer.in_channels
        elif isinstance(layer, nn.Linear):
            widths_out[name], widths_in[name] = layer.out_features, layer.in_features
        else:
            continue
        layers[name] = sum(by_module.get(f"{prefix}.{name}", {}).values()) // 2
    return LayerCosts(layers, widths_out, widths_in, counter.get_total_flops() // 2 - sum(layers.values()))


def parameter_count(model: nn.Module) -> int:
    """Elements of all parameters, buffers not included; shared ones count once."""
    return sum(p.numel() for p in model.parameters())
