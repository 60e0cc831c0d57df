"""One group's parameters as criteria see them: arranged by root channel, whatever layer they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import Grams
from secateur.compression.compensation.readers import Reader, matrix
from secateur.compression.criteria.activities import Activity
from secateur.compression.criteria.obs import Reading
from secateur.records import Group, Member, Side

WRITING = ("convolution", "transposed convolution", "linear", "transposed linear")
"""Kinds of members whose weights write channels or read them."""


@dataclass(frozen=True)
class ChannelTensors:
    """One group's parameters by root channel; every entry is (channels, elements), float32.

    producers, biases: weights that write the channel and what is added to them (one entry per convolution or linear layer; no
    elements where a layer has no bias). written: which channels that layer has a row for, (channels,) of bool; a padded shortcut
    leaves some without. consumers: weights that read the channel. scales: those of batch norms. The `_grad` twins are gradients
    of the loss, empty for criteria without data. removable: the channels that may go. For criteria that need them: readings, how
    each layer reads the group with its Gram matrix; magnitudes and nonzeros, (channels, inputs), the mean absolute value of what a
    layer reads and the share of it that is not 0.
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
    magnitudes: list[Tensor]
    nonzeros: list[Tensor]


def arranged(
    group: Group,
    modules: Mapping[str, nn.Module],
    *,
    graded: bool = False,
    grams: Grams | None = None,
    activities: Mapping[str, Activity] | None = None,
) -> ChannelTensors:
    """Gather a group's weights by root channel, with the gradients that a backward pass has left in them."""
    tensors = ChannelTensors(group.name, group.width, [], [], [], [], [], [], [], [], group.removable, [], [], [])
    for member in group.members:
        layer, width = modules.get(member.module), group.width  # None: a tensor that belongs to no layer
        if member.kind == "batch norm" and layer is not None and isinstance(layer.weight, Tensor):
            tensors.scales.append(_by_root(layer.weight, member, width))
        for side, weight, bias, rows in weights_of(layer, member):
            if side == "in":
                tensors.consumers.append(_by_root(rows(weight), member, width))
                if graded:
                    tensors.consumers_grad.append(_by_root(rows(_gradient(weight)), member, width))
                continue
            tensors.producers.append(_by_root(rows(weight), member, width))
            tensors.biases.append(_by_root(None if bias is None else rows(bias), member, width))
            tensors.written.append(torch.zeros(width).index_fill(0, torch.tensor(member.roots), 1).bool())
            if graded:
                tensors.producers_grad.append(_by_root(rows(_gradient(weight)), member, width))
                tensors.biases_grad.append(_by_root(None if bias is None else rows(_gradient(bias)), member, width))
        if grams is not None and member.side == "in" and member.kind in WRITING and isinstance(layer, Reader):
            tensors.readings.append(_reading(layer, member, width, grams.get(member.module)))
        if activities is not None and member.side == "in" and member.module in activities:
            activity = activities[member.module]
            tensors.magnitudes.append(_by_root(activity.magnitude, member, width))
            tensors.nonzeros.append(_by_root(activity.nonzero, member, width))
    return tensors


def weights_of(
    layer: nn.Module | None, member: Member
) -> Iterator[tuple[Side, Tensor, Tensor | None, Callable[[Tensor], Tensor]]]:
    """What writes ("out") or reads ("in") a member's channels: weight, bias, and how either becomes (channels, …)."""
    if isinstance(layer, nn.RNNBase):
        yield from _recurrent_weights(layer, member.side)
    elif member.kind in WRITING and layer is not None:
        transposed = member.kind.startswith("transposed")
        axis = int((member.side == "in") != transposed)
        bias = cast("Tensor | None", layer.bias)
        yield member.side, cast("Tensor", layer.weight), bias, lambda x: x.movedim(min(axis, x.dim() - 1), 0)


def _recurrent_weights(
    layer: nn.RNNBase, side: Side
) -> Iterator[tuple[Side, Tensor, Tensor | None, Callable[[Tensor], Tensor]]]:
    """Gates write hidden units; all weights but those of the input read them."""
    size = layer.input_size if side == "in" else layer.hidden_size
    for name, weight in layer.named_parameters(recurse=False):
        if not name.startswith("weight"):
            continue
        if side == "out":
            bias = cast("Tensor | None", getattr(layer, name.replace("weight", "bias"), None))
            yield "out", weight, bias, lambda x: torch.unflatten(x, 0, (-1, size)).movedim(1, 0)
        if name.startswith("weight_ih_l0") == (side == "in"):
            yield "in", weight, None, lambda x: torch.unflatten(x, 1, (-1, size)).movedim(2, 0)


def _reading(layer: Reader, member: Member, width: int, gram: Tensor | None) -> Reading:
    """A layer as `obs` sees it. gram: where there is none, its inputs count as if each told something of its own."""
    weight, kernel = matrix(layer)[0], layer.weight[0, 0].numel()
    columns: dict[int, list[int]] = {}
    for root, index in zip(member.roots, member.indices, strict=True):
        columns.setdefault(root, []).extend(range(index * kernel, (index + 1) * kernel))
    blocks = torch.full((width, max(map(len, columns.values()))), -1)
    for root, entries in columns.items():
        blocks[root, : len(entries)] = torch.tensor(entries)
    size = weight.shape[1]
    return Reading(weight, torch.eye(size) if gram is None else gram[0, :size, :size], blocks)


def _gradient(tensor: Tensor) -> Tensor:
    """What the backward pass has left; zero where the loss does not depend on the tensor."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _by_root(tensor: Tensor | None, member: Member, width: int) -> Tensor:
    """(channels, …), gathered by root channel: (width, elements); roots without a row read zero."""
    if tensor is None:
        return torch.zeros(width, 0)
    rows = tensor.detach().float().reshape(len(tensor), -1)
    roots, indices = torch.tensor(sorted(zip(member.roots, member.indices, strict=True))).T
    counts = roots.bincount(minlength=width)
    places = torch.arange(len(roots)) - (counts.cumsum(0) - counts)[roots]  # of each index among those of its root
    gathered = torch.zeros(width, int(counts.max()), rows.shape[1])
    gathered[roots, places] = rows[indices]
    return gathered.flatten(1)
