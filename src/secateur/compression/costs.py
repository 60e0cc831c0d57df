"""Multiply-accumulates and parameters of a network, for one sample.

MACs are counted by torch's own FLOP counter on the dense network, layer by layer; those of a cut network follow exactly,
because a convolution or linear layer's count is proportional to the input and to the output channels that stay.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
        total = float(self.other)
        for name, macs in self.layers.items():
            total += (
                macs
                * _kept(self.widths_out[name], removals.out.get(name))
                * _kept(self.widths_in[name], removals.in_.get(name))
            )
        return round(total)


def _kept(width: int, removed: tuple[int, ...] | None) -> float:
    return 1.0 if removed is None else (width - len(removed)) / width


def layer_costs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> LayerCosts:
    """Count the MACs of every convolution and linear layer with one forward pass of one sample."""
    sample = tuple(x[:1] for x in example_inputs)
    counted = copy.deepcopy(model).eval()
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
