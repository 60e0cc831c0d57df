"""Weights that become zero: which of a network's may, and how a mask is written down and carried out."""

from __future__ import annotations

import base64
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from secateur.compression.coupling.layers import layer_of
from secateur.compression.removal import weight_axis
from secateur.records import Group, Mask, Member, Weights

MASKED = ("convolution", "transposed convolution", "linear", "transposed linear")
"""Kinds of layers of which single weights may become zero."""


def mask_of(weights: Weights, zeros: Tensor) -> Mask:
    """A mask as data. zeros: (rows, inputs, kernel) of bool."""
    bits = np.packbits(zeros.numpy().reshape(-1))
    return Mask(weights.layer, weights.rows, base64.b64encode(zlib.compress(bits.tobytes())).decode())


def zeros_of(mask: Mask, size: int) -> Tensor:
    """Which weights go: (rows, size) of bool. size: weights of a row."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(mask.zeros)), np.uint8)
    count = len(mask.rows) * size
    return torch.from_numpy(np.unpackbits(bits, count=count).astype(bool)).view(len(mask.rows), size)


def count_of(mask: Mask) -> int:
    """How many weights go."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(mask.zeros)), np.uint8)
    return int(np.bitwise_count(bits).sum())


def by_row(layer: nn.Module, tensor: Tensor) -> Tensor:
    """A layer's weight, or its gradient, by output channel: (rows, inputs, kernel)."""
    rows = tensor.detach().movedim(weight_axis(layer, "out"), 0)
    return rows.reshape(len(rows), rows.shape[1], -1)


def spread(layer: nn.Module, mask: Mask) -> Tensor:
    """Which weights of a layer go: bool, on the CPU, in the shape of its weight."""
    axis = weight_axis(layer, "out")
    rows = torch.zeros(cast("Tensor", layer.weight).movedim(axis, 0).shape, dtype=torch.bool)
    rows[[*mask.rows]] = zeros_of(mask, math.prod(rows.shape[1:])).view(-1, *rows.shape[1:])
    return rows.movedim(0, axis)


@torch.no_grad()
def zeroed(layer: nn.Module, mask: Mask) -> None:
    """Give a layer a weight of its own in which the mask's weights are zero; the old one stays as it is."""
    weight = cast("nn.Parameter", layer.weight)
    layer.weight = nn.Parameter(
        weight.detach().masked_fill(spread(layer, mask).to(weight.device), 0.0).contiguous(), weight.requires_grad
    )


def zeros_in(model: nn.Module, layers: Iterable[str]) -> list[tuple[nn.Parameter, Tensor]]:
    """The weights of masked layers, and which of them are zero."""
    weights = [cast("nn.Parameter", model.get_submodule(name).weight) for name in layers]
    return [(weight, weight.detach() == 0) for weight in weights]


@torch.no_grad()
def keep_zero(masked: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    """Set weights to zero again, whatever has changed them."""
    for weight, zeros in masked:
        weight.masked_fill_(zeros, 0.0)


def weights_of(model: nn.Module, members: Iterable[Member]) -> tuple[Weights, ...]:
    """The weights by which layers write a group's channels. Those that several layers share are none."""
    open_to_masks = _maskable(model)
    rows: dict[str, set[int]] = {}
    for member in members:
        if member.side == "out" and member.module in open_to_masks:
            rows.setdefault(member.module, set()).update(member.indices)
    return tuple(_weights(model, name, sorted(indices)) for name, indices in rows.items())


def unwritten(model: nn.Module, groups: Iterable[Group]) -> Iterator[Weights]:
    """The weights of layers, or of some of their channels, that no group writes with: their channels must stay."""
    written: dict[str, set[int]] = {}
    for group in groups:
        for weights in group.weights:
            written.setdefault(weights.layer, set()).update(weights.rows)
    for name in _maskable(model):
        others = sorted(set(range(_rows(model, name))) - written.get(name, set()))
        if others:
            yield _weights(model, name, others)


def _maskable(model: nn.Module) -> tuple[str, ...]:
    shared = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return tuple(
        name
        for name, module in model.named_modules()
        if (layer := layer_of(name, module)) is not None
        and layer.kind in MASKED
        and not (layer.kind.startswith("transposed") and layer.blocks > 1)
        and shared[id(module.weight)] < 2
    )


def _rows(model: nn.Module, name: str) -> int:
    layer = model.get_submodule(name)
    return cast("Tensor", layer.weight).shape[weight_axis(layer, "out")]


def _weights(model: nn.Module, name: str, rows: Iterable[int]) -> Weights:
    layer = model.get_submodule(name)
    _, inputs, kernel = by_row(layer, cast("Tensor", layer.weight)).shape
    return Weights(name, tuple(rows), inputs, kernel)
