"""Gates: residual blocks that run only for the inputs that need them. Needs torch alone: exported models carry this file.

Source: Veit & Belongie 2018 (Convolutional networks with adaptive inference graphs), arXiv:1711.11503; the decision is learnt by
the straight-through Gumbel-softmax of Jang et al. 2017, arXiv:1611.01144, at temperature 1. Of two options the difference of their
logits is all that counts, and that of two Gumbel variables is logistic: one logit a gate is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

OPEN = 2.0
"""The logit of a new gate, for every input: open."""
SPREAD = 2.0
"""Standard deviation of a gate's logits over the inputs when training begins."""


class Gated(nn.Module):
    """A residual block behind a gate: where that is closed, what the block reads goes on in place of what it would have given.

    The gate is a linear layer on the mean of the first input over all positions, and a batch norm: without that gates learn to be
    open for all inputs or for none. In training a sample's gate opens by chance, with probability sigmoid(logit). In evaluation it
    is open where the logit is above `threshold`, and the block runs only if some sample of the batch wants it. Everything else is
    asked of the block itself.

    opened: after a pass in training mode, 1 for each sample whose logit is above 0, with the gradient of its probability.
    """

    threshold: Tensor

    def __init__(self, block: nn.Module, width: int) -> None:
        """width: channels of the block's first input, along `channel_axis`."""
        super().__init__()
        self.block, self.gate, self.norm = block, nn.Linear(width, 1, bias=False), nn.BatchNorm1d(1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.norm.weight, SPREAD)
        nn.init.constant_(self.norm.bias, OPEN)
        self.register_buffer("threshold", torch.zeros(()))
        self.opened: Tensor | None = None
        self.train(block.training)

    def __getattr__(self, name: str) -> Any:
        """What it does not have is the block's: layers are found by the names that they had, and so are the model's attributes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "block":  # while it is being copied or built
                raise
            return getattr(self.block, name)

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        """x: (n, …). Returns the same shape. others, named: the block's. In training mode, leaves `opened`: (n,)."""
        channels = channel_axis(self.block, x)
        positions = [axis for axis in range(1, x.dim()) if axis != channels]
        logit = self.norm(self.gate(x.mean(positions) if positions else x))  # (n, 1)
        if self.training:
            logit = logit.float()  # under autocast it may be of a type that knows no number next to 1
            chance = torch.sigmoid(logit[:, 0])
            self.opened = (chance > 0.5).to(chance) + chance - chance.detach()
            drawn = torch.rand_like(logit).clamp(1e-6, 1 - 1e-6)
            soft = torch.sigmoid(logit + drawn.logit())
            hard = (soft > 0.5).to(soft) + soft - soft.detach()
            mixed: Tensor = x + self._spread(hard, x) * (self.block(x, *others, **named) - x)
            return mixed

        def run(x: Tensor, logit: Tensor) -> Tensor:
            return torch.where(self._spread(logit > self.threshold, x), self.block(x, *others, **named), x)

        def skip(x: Tensor, _: Tensor) -> Tensor:
            return x.clone()  # a branch of torch.cond may not give what it was given

        wanted = logit.max() > self.threshold
        if torch.compiler.is_exporting():
            given: Tensor = torch.cond(wanted, run, skip, (x, logit))
            return given
        return run(x, logit) if wanted else x

    @staticmethod
    def _spread(decision: Tensor, x: Tensor) -> Tensor:
        """(n, 1) → (n, 1, …), as many dimensions as x has."""
        return decision.view(-1, *[1] * (x.dim() - 1))


def channel_axis(block: nn.Module, x: Tensor) -> int:
    """Which dimension of a block's input holds channels: 1 where the block convolves, else the last one."""
    convolves = any(isinstance(layer, nn.modules.conv._ConvNd) for layer in block.modules())
    return 1 if convolves else x.dim() - 1


def gated(model: nn.Module, gates: Mapping[str, int]) -> nn.Module:
    """The model, in place, with new gates before some of its blocks. gates: name of the block → channels that it reads."""
    for name, width in gates.items():
        model.set_submodule(name, Gated(model.get_submodule(name), width))
    return model


def gated_blocks(model: nn.Module) -> dict[str, Gated]:
    """The gated blocks of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Gated)}


def set_threshold(model: nn.Module, logit: float) -> None:
    """What a gate's logit must exceed for it to be open, for all gates of a model: minus infinity opens all of them."""
    for block in gated_blocks(model).values():
        block.threshold.fill_(logit)
