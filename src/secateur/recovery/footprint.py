"""What a training takes of memory, beside the process that does it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from secateur.compression.copies import copied
from secateur.definition import RecoverDefinition
from secateur.recovery.randomness import seeded
from secateur.workloads.pytrees import PyTree, call, length, mapped

COPIES = 3
"""Of the weights: the cut network as it was, the teacher, gradients."""
FIRST = 100_000_000
"""Bytes that the first training of a process takes beside all that (84 million more than the second, with torch on the CPU)."""
FILE = 2
"""A checkpoint's tensors, and the bytes of its file, are in memory beside what they are copies of."""


def training_bytes(model: nn.Module, example_inputs: PyTree, settings: RecoverDefinition, samples: int) -> int:
    """Bytes that training any network cut from this model takes, at most about.

    Weights, teacher, gradients and what the optimizer remembers are multiples of the model's size; what a forward pass keeps for
    the backward pass is measured on the example inputs, and grows with the batch. samples: of the training data. A trainer of the
    user's own is taken for the built-in one.
    """
    own = {tensor.untyped_storage().data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    weights = sum(tensor.numel() for tensor in own.values()) * 4  # float32 whatever the model has
    remembered = 2 if settings.optimizer == "adamw" else 1
    kept = 2 + remembered + (settings.ema is not None)  # weights now, and before the epoch
    batch = settings.sizes(samples)[0]
    inputs = mapped(
        lambda x: torch.cat((x, x)), example_inputs
    )  # of one sample alone a batch norm may have no variance
    saved = _saved_bytes(model, inputs) * batch // length(inputs)
    return FIRST + weights * (COPIES + kept * (1 + FILE)) + saved


def _saved_bytes(model: nn.Module, inputs: PyTree) -> int:
    """What a forward pass in training keeps for the backward pass, without parameters and buffers."""
    model = copied(model).float().train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}  # held until the pass is over: no two of them in the same place

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with seeded(0), saved_tensors_hooks(keep, lambda tensor: tensor):
        call(model, inputs)
    return sum(saved[place].untyped_storage().nbytes() for place in saved.keys() - own)
