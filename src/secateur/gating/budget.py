"""The term of the loss by which a network learns to keep a budget."""

from __future__ import annotations

from torch import Tensor, nn

from secateur.compression.gates import gated_blocks
from secateur.gating.prices import Prices


def budget_loss(model: nn.Module, prices: Prices, budget: float) -> Tensor:
    """(share of MACs − budget)² over the batch that the model has just been trained on: scalar.

    What counts is what the gates would do in evaluation: a network whose probabilities keep a budget of 60 % took 81 % there.
    budget: share of the ungated network's MACs; the gates' own are paid from it. The gates forget that batch.
    Source: the target-rate loss of Veit & Belongie 2018, arXiv:1711.11503; theirs is of each layer, this one of the network.
    """
    opened: dict[str, Tensor] = {}
    for name, block in gated_blocks(model).items():
        assert block.opened is not None  # noqa: S101 # the model has just run in training mode
        opened[name], block.opened = block.opened, None
    return (prices.share(opened) - budget).square()
