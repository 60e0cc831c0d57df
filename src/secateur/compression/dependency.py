"""The adapter to torch-pruning, which removes the channels of one layer; and how many channels a layer has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning import ops

from secateur.records import Side


def width_of(module: nn.Module, side: Side) -> int | None:
    """Channels of a layer on one side, None where its kind does not say."""
    names = ("out_channels", "out_features") if side == "out" else ("in_channels", "in_features")
    for name in (*names, "num_features", "num_channels", "embedding_dim", "num_parameters"):
        if isinstance(value := getattr(module, name, None), int):
            return value
    return None


def prune_layer(module: nn.Module, side: Side, indices: Sequence[int]) -> None:
    """Remove channels of one layer in place. indices: into its current tensors; side: which of its channels.

    Of a grouped convolution and of a group norm whole groups leave; a convolution loses what they read with what they write.
    """
    if isinstance(module, nn.GroupNorm):
        module.num_groups -= len(indices) * module.num_groups // module.num_channels
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
        _prune_groups(module, indices)
        return
    pruner = tp.pruner.function.PrunerBox[ops.module2type(module)]
    (pruner.prune_out_channels if side == "out" else pruner.prune_in_channels)(module, list(indices))


def _prune_groups(convolution: Any, indices: Sequence[int]) -> None:
    """Groups leave a convolution. indices: all their output channels."""
    writes, reads = (width // convolution.groups for width in (convolution.out_channels, convolution.in_channels))
    gone = {index // writes for index in indices}
    kept = [group for group in range(convolution.groups) if group not in gone]
    outputs = [channel for group in kept for channel in range(group * writes, (group + 1) * writes)]
    inputs = [channel for group in kept for channel in range(group * reads, (group + 1) * reads)]
    rows = inputs if convolution.transposed else outputs
    convolution.weight = nn.Parameter(convolution.weight.detach()[rows].clone())
    if convolution.bias is not None:
        convolution.bias = nn.Parameter(convolution.bias.detach()[outputs].clone())
    convolution.groups, convolution.out_channels, convolution.in_channels = len(kept), len(outputs), len(inputs)
