"""One group's parameters as criteria see them: arranged by root channel, whatever layer they are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import Grams
from secateur.compression.compensation.readers import Reader, matrix
from secateur.compression.obs import Reading
from secateur.records import Group, Member

WRITING = ("convolution", "transposed convolution", "linear", "transposed linear")
"""Kinds of members whose weights write channels or read them."""


@dataclass(frozen=True)
class ChannelTensors:
    """One group's parameters by root channel; every entry is (channels, elements), float32.

    producers, biases: weights that write the channel and what is added to them (one entry per convolution or linear layer; no
    elements where a layer has no bias). written: which channels that layer has a row for, (channels,) of bool; a padded shortcut
    leaves some without. consumers: weights that read the channel. scales: those of batch norms. The `_grad` twins are gradients
    of the loss, empty for criteria without data. removable: the channels that may go. readings: how each layer reads the group, for
    criteria that need Gram matrices.
    """

    name: str
    channels: int
    producers: list[Tensor]
    biases: list[Tensor]
    written: list[Tensor]
    consumers: list[Tensor]
    scales: list[Tensor]
    producers_grad: list[Tensor]
    biases_grad: list[Tensor]
    consumers_grad: list[Tensor]
    removable: tuple[int, ...]
    readings: list[Reading]


def arranged(
    group: Group, modules: Mapping[str, nn.Module], *, graded: bool = False, grams: Grams | None = None
) -> ChannelTensors:
    """Gather a group's weights by root channel, with the gradients that a backward pass has left in them."""
    tensors = ChannelTensors(group.name, group.width, [], [], [], [], [], [], [], [], group.removable, [])
    for member in group.members:
        layer, width = modules.get(member.module), group.width  # None: a tensor that belongs to no layer
        weight, bias = (cast("Tensor | None", getattr(layer, name, None)) for name in ("weight", "bias"))
        if weight is None:
            continue
        if member.kind == "batch norm":
            tensors.scales.append(_by_root(weight, 0, member, width))
        elif member.kind in WRITING:
            transposed = member.kind.startswith("transposed")
            dimension = int((member.side == "in") != transposed)
            if member.side == "in":
                tensors.consumers.append(_by_root(weight, dimension, member, width))
                if grams is not None and isinstance(layer, Reader):
                    tensors.readings.append(_reading(layer, member, width, grams.get(member.module)))
            else:
                tensors.producers.append(_by_root(weight, dimension, member, width))
                tensors.biases.append(_by_root(bias, 0, member, width))
                tensors.written.append(torch.zeros(width).index_fill(0, torch.tensor(member.roots), 1).bool())
            if graded and member.side == "in":
                tensors.consumers_grad.append(_by_root(_gradient(weight), dimension, member, width))
            elif graded:
                tensors.producers_grad.append(_by_root(_gradient(weight), dimension, member, width))
                tensors.biases_grad.append(_by_root(_gradient(bias), 0, member, width))
    return tensors


def _reading(layer: Reader, member: Member, width: int, gram: Tensor | None) -> Reading:
    """A layer as `obs` sees it. gram: where there is none, its inputs count as if each told something of its own."""
    weight, kernel = matrix(layer)[0], layer.weight[0, 0].numel()
    columns: dict[int, list[int]] = {}
    for root, index in zip(member.roots, member.indices, strict=True):
        columns.setdefault(root, []).extend(range(index * kernel, (index + 1) * kernel))
    blocks = torch.full((width, max(map(len, columns.values()))), -1)
    for root, found in columns.items():
        blocks[root, : len(found)] = torch.tensor(found)
    size = weight.shape[1]
    return Reading(weight, torch.eye(size) if gram is None else gram[0, :size, :size], blocks)


def _gradient(tensor: Tensor | None) -> Tensor | None:
    """What the backward pass has left; zero where the loss does not depend on the tensor."""
    if tensor is None:
        return None
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _by_root(tensor: Tensor | None, dimension: int, member: Member, width: int) -> Tensor:
    """Rows of a tensor along `dimension`, gathered by root channel: (width, elements); roots without a row read zero."""
    if tensor is None:
        return torch.zeros(width, 0)
    rows = (
        tensor.detach().float().movedim(dimension, 0).flatten(1)
        if tensor.dim() > 1
        else tensor.detach().float()[:, None]
    )
    per_root: dict[int, list[int]] = {}
    for root, index in zip(member.roots, member.indices, strict=True):
        per_root.setdefault(root, []).append(index)
    longest = max(len(indices) for indices in per_root.values())
    gathered = torch.zeros(width, longest * rows.shape[1])
    for root, indices in per_root.items():
        picked = rows[sorted(indices)].flatten()
        gathered[root, : picked.numel()] = picked
    return gathered
