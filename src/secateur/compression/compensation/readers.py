"""Convolutions and linear layers as matrix products: the columns that their weights meet, at drawn places of their output."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor, nn

from secateur.records import Group

Reader = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
PLACES = 64
"""Places of a layer's output (pixels, tokens) that one sample gives to least squares: neighbours tell little that is new."""
MOST_COLUMNS = 3072
"""Inputs of one output channel (channels × kernel) up to which a layer is refitted: 38 MB of float32, half a second of solving."""
MOST_ENTRIES = 2**28
"""Entries of all Gram matrices of a network: 1 GiB of float32. The largest are left out first."""


def readers(model: nn.Module, groups: Sequence[Group]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Layers that read channels which may be cut, or of which weights may become zero; and those not refitted, with the reason.

    In the model's order.
    """
    reading = {member.module for group in groups for member in group.members if member.side == "in"}
    reading |= {weights.layer for group in groups for weights in group.weights}
    tied = Counter(id(layer.weight) for layer in model.modules() if isinstance(layer, (Reader, nn.Embedding)))
    sizes: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for name, layer in model.named_modules():
        if name not in reading:
            continue
        if not isinstance(layer, Reader):
            reasons[name] = f"a {type(layer).__name__} is not refitted"
        elif tied[id(layer.weight)] > 1:
            reasons[name] = "another layer has the same weight"
        elif (columns := layer.weight[0].numel()) > MOST_COLUMNS:
            reasons[name] = f"{columns:,} inputs an output; at most {MOST_COLUMNS:,} are refitted"
        else:
            sizes[name] = _groups(layer) * (columns + 1) ** 2
    kept, room = set[str](), MOST_ENTRIES
    for name in sorted(sizes, key=sizes.__getitem__):
        room -= sizes[name]
        if room < 0:
            reasons[name] = (
                f"the Gram matrices of smaller layers fill the {MOST_ENTRIES // 2**28} GiB that there are for them"
            )
        else:
            kept.add(name)
    return tuple(name for name in sizes if name in kept), reasons


@contextmanager
def before_each(model: nn.Module, names: Sequence[str], look: Callable[[str, Reader, Tensor], None]) -> Iterator[None]:
    """Whenever one of the named layers runs inside, `look` is given its name, the layer and its input, before it runs."""

    def seen(name: str, layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        look(name, cast("Reader", layer), given[0] if given else named["input"])

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(seen, name), with_kwargs=True) for name in names
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def columns(layer: Reader, inputs: Tensor) -> Tensor:
    """What the layer's weights meet at `PLACES` places of each sample: (groups, rows, columns), columns as in `weight.flatten(1)`.

    inputs: as the layer takes them. The places depend on the shapes alone: the same call at another network's layer meets the same.
    """
    if isinstance(layer, nn.Linear):
        return _drawn(inputs.movedim(-1, 1), inputs.dim() - 2)[None]
    kernel = layer.kernel_size
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    pads = layer._reversed_padding_repeated_twice  # what torch goes by, but for zeros whose number is given
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        pads = [width for width in reversed(layer.padding) for _ in range(2)]
    windows = F.pad(inputs, pads, mode=mode)
    for axis, (size, stride, dilation) in enumerate(zip(kernel, layer.stride, layer.dilation, strict=True), start=2):
        windows = windows.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    rows = _drawn(windows, len(kernel))
    return rows.reshape(len(rows), layer.groups, -1).transpose(0, 1)


def answers(layer: Reader, outputs: Tensor) -> Tensor:
    """The layer's outputs at the places of `columns`: (rows, out)."""
    if isinstance(layer, nn.Linear):
        return _drawn(outputs.movedim(-1, 1), outputs.dim() - 2)
    return _drawn(outputs, len(layer.kernel_size))


def _drawn(values: Tensor, dimensions: int) -> Tensor:
    """values: (samples, channels, places over so many dimensions, …) → (rows, channels, …), all places where they are few."""
    space = values.shape[2 : 2 + dimensions]
    if math.prod(space) <= PLACES:
        return values.movedim(1, 1 + dimensions).flatten(0, dimensions)
    chosen = torch.randint(math.prod(space), (len(values), PLACES), generator=torch.Generator().manual_seed(0))
    where: tuple[Any, ...] = (torch.arange(len(values))[:, None], slice(None), *torch.unravel_index(chosen, space))
    return values[where].flatten(0, 1)


def matrix(layer: Reader) -> Tensor:
    """The layer's weights, its biases as the last column where it has them: (groups, out, columns)."""
    weight = layer.weight.detach().flatten(1)
    if layer.bias is not None:
        weight = torch.cat([weight, layer.bias.detach()[:, None]], 1)
    return weight.view(_groups(layer), -1, weight.shape[1])


def overwrite(layer: Reader, weights: Tensor) -> None:
    """Give the layer the weights of a `matrix`, in place. weights: (out, columns) of all groups."""
    if layer.bias is not None:
        layer.bias.detach().copy_(weights[:, -1])
        weights = weights[:, :-1]
    layer.weight.detach().copy_(weights.view_as(layer.weight))


def zeros_in(layer: Reader) -> Tensor:
    """Which entries of its `matrix` are zero; biases never are."""
    zeros = matrix(layer) == 0
    if layer.bias is not None:
        zeros[:, :, -1] = False
    return zeros


def kept_columns(dense: Reader, gone: Sequence[int]) -> Tensor | None:
    """Which columns of the dense layer's `matrix` stay without some input channels: (groups, columns), the bias among them.

    None where the groups of a convolution do not lose equally many: then whole groups go, and those that stay lose nothing.
    """
    groups, (channels, *kernel) = _groups(dense), dense.weight.shape[1:]
    stays = torch.ones(groups * channels, dtype=torch.bool)
    stays[list(gone)] = False
    each = stays.view(groups, channels).sum(1)
    if each.min() < each.max():
        return None
    columns = stays.repeat_interleave(math.prod(kernel)).view(groups, -1)
    if dense.bias is not None:
        columns = torch.cat([columns, torch.ones(groups, 1, dtype=torch.bool)], 1)
    return columns.nonzero()[:, 1].view(groups, -1)


def kept_rows(dense: Reader, gone: Sequence[int]) -> Tensor:
    """Which outputs of the dense layer stay without some of them."""
    stays = torch.ones(len(dense.weight), dtype=torch.bool)
    stays[list(gone)] = False
    return stays.nonzero()[:, 0]


def _groups(layer: Reader) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups
