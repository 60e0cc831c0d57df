"""What gated blocks cost, in multiply-accumulates for one sample, and what a network costs by which of its gates are open."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.compression.copies import copied
from secateur.compression.costs import layer_costs
from secateur.compression.gates import gated_blocks, set_threshold
from secateur.workloads.pytrees import PyTree


@dataclass(frozen=True)
class Prices:
    """MACs. blocks: of each gated block, in the order in which they run. gates: of all gates. others: of what runs always."""

    blocks: Mapping[str, int]
    gates: int
    others: int

    @property
    def ungated(self) -> int:
        """Of the network without gates."""
        return self.others + sum(self.blocks.values())

    def of(self, opened: Collection[str]) -> int:
        """Of a pass in which these blocks run; every gate is paid for."""
        return self.others + self.gates + sum(macs for name, macs in self.blocks.items() if name in opened)

    def average(self, decisions: Mapping[str, Tensor]) -> float:
        """Of an average sample. decisions: of each gate, (n,) of bool."""
        return float(self.share({name: wanted.double() for name, wanted in decisions.items()})) * self.ungated

    def share(self, opened: Mapping[str, Tensor]) -> Tensor:
        """Share of the ungated network's: scalar. opened: of each gate 1 where it is open and 0 where not, (n,)."""
        macs = torch.stack([macs * opened[name].mean() for name, macs in self.blocks.items()]).sum()
        return (self.others + self.gates + macs) / self.ungated


def prices_of(model: nn.Module, example_inputs: PyTree) -> Prices:
    """Count the MACs of a gated model, on the CPU, with one pass of one sample through all of its blocks."""
    opened = copied(model)
    set_threshold(opened, -torch.inf)
    names: list[str] = []
    for name, block in gated_blocks(opened).items():
        block.register_forward_hook(lambda *_, name=name: names.append(name))
    costs = layer_costs(opened, example_inputs)
    blocks = {
        name: costs.inside.get(f"{name}.block", 0)
        + sum(macs for layer, macs in costs.layers.items() if layer.startswith(f"{name}.block."))
        for name in names
    }
    gates = sum(costs.layers[f"{name}.gate"] for name in names)
    return Prices(blocks, gates, costs.total - gates - sum(blocks.values()))
