"""Channels of one layer: taken out of its tensors, or made silent in the reference that the proof compares with.

A name is that of a layer, `module:tensor:dimension` for a tensor that belongs to no layer, or `module:attribute` for a number that
counts channels. torch-pruning removes the indices of torch's plain layers (Fang et al. 2023, arXiv:2301.12900); what it does not
know is here, and so are layer norms: of those it may leave the channels that stay in another order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning import ops

from secateur.compression.coupling.layers import is_turned_linear, layer_of, norm_of
from secateur.records import Side


def layer_at(model: nn.Module, name: str) -> nn.Module:
    """The layer of this name; of a tensor and of a number the module that holds it."""
    return model.get_submodule(name.partition(":")[0])


def parameters_at(model: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of a layer; what is no layer may be one itself."""
    module, *part = _parts(model, name)
    held = [getattr(module, part[0])] if part else list(module.parameters())
    return [parameter for parameter in held if isinstance(parameter, nn.Parameter)]


def width_of(model: nn.Module, name: str, side: Side) -> int:
    """Channels on one side of a layer, along a dimension of a tensor, or as a number says."""
    module, *part = _parts(model, name)
    if part:
        value = getattr(module, part[0])
        return value.shape[int(part[1])] if isinstance(value, Tensor) else int(value)
    layer = layer_of(name, module)
    if layer is None:  # a norm of the model's own
        return len(next(module.parameters()))
    return layer.reads if side == "in" else layer.writes


@torch.no_grad()
def remove(model: nn.Module, name: str, side: Side, indices: Sequence[int]) -> None:
    """Take channels out of a layer, or out of a dimension of a tensor, in place. indices: into its current tensors.

    Of a grouped convolution and of a norm over several groups of channels whole groups leave; a convolution loses what they read
    with what they write.
    """
    module, *part = _parts(model, name)
    if part:
        value = getattr(module, part[0])
        if isinstance(value, Tensor):
            _replace(module, part[0], _without(value, int(part[1]), indices))
        else:
            setattr(module, part[0], value - len(indices))
    elif isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
        _remove_groups(module, indices)
    elif _plain(module):
        if isinstance(module, nn.GroupNorm):
            module.num_groups -= len(indices) * module.num_groups // module.num_channels
        pruner = tp.pruner.function.PrunerBox[ops.module2type(module)]
        (pruner.prune_out_channels if side == "out" else pruner.prune_in_channels)(module, list(indices))
    else:
        _narrow(module, width_of(model, name, side), side, indices)


@torch.no_grad()
def silence(model: nn.Module, name: str, side: Side, indices: Sequence[int]) -> None:
    """Make channels of a layer zero where they arise or are read, in place; the shapes stay.

    A batch norm's scale and shift become zero as well: what it would add to a removed channel must not reach anyone. A norm over
    channels sees those that stay and no others.
    """
    (module, *part), gone = _parts(model, name), torch.tensor(indices)
    if part:
        value = getattr(module, part[0])
        if isinstance(value, Tensor):
            value.index_fill_(int(part[1]), gone, 0.0)
    elif _mixes(module):
        model.set_submodule(name, _Remaining(module, width_of(model, name, side), indices))
    elif not isinstance(module, nn.PReLU):  # it maps zero to zero
        width = width_of(model, name, side)
        for _, tensor, axis in _losing(module, side):
            tensor.index_fill_(axis, torch.tensor(_entries(module, indices, width, tensor.shape[axis])), 0.0)


def lost(model: nn.Module, name: str, side: Side, count: int) -> Iterator[tuple[str, int, int]]:
    """Parameters that shrink when `count` channels leave: (name, axis, entries that leave along it)."""
    module, *part = _parts(model, name)
    if part:
        if len(part) > 1:
            holder = name.partition(":")[0]
            yield f"{holder}.{part[0]}".removeprefix("."), int(part[1]), count
        return
    width = width_of(model, name, side)
    for parameter, tensor, axis in _losing(module, side):
        of_groups = isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1
        left = len(_entries(module, range(count), width, tensor.shape[axis]))
        yield f"{name}.{parameter}", axis, count * len(tensor) // module.out_channels if of_groups else left


def weight_axis(module: nn.Module, side: Side) -> int:
    """The axis of a layer's weight along which the channels of one side lie."""
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups == 1
    turned = transposed or isinstance(module, nn.Embedding) or is_turned_linear(module)
    return int((side == "in") != turned)


def _losing(module: nn.Module, side: Side) -> Iterator[tuple[str, Tensor, int]]:
    """The parameters of a layer that hold the channels of one side, each with the axis."""
    plain = {name: getattr(module, name) for name in getattr(module, "parametrizations", ())}
    if isinstance(module, nn.RNNBase):
        yield from _losing_units(module, side)
        return
    for name, tensor in (*module.named_parameters(recurse=False), *plain.items()):
        if tensor.dim() > 1:
            yield name, tensor, weight_axis(module, side)
        elif side == "out" and len(tensor) > 1:
            yield name, tensor, 0


def _losing_units(module: nn.RNNBase, side: Side) -> Iterator[tuple[str, Tensor, int]]:
    """Of a recurrent layer: what reads its input; or the rows of all gates, and what reads hidden units."""
    for name, tensor in module.named_parameters(recurse=False):
        reads_input = name.startswith("weight_ih_l0")
        if side == "out":
            yield name, tensor, 0
        if tensor.dim() > 1 and reads_input == (side == "in"):
            yield name, tensor, 1


def _entries(module: nn.Module, indices: Sequence[int], width: int, size: int) -> list[int]:
    """Where channels lie along an axis of so many entries: a recurrent layer has them once for each gate or direction."""
    times = size // width if isinstance(module, nn.RNNBase) else 1
    return [number * width + index for number in range(times) for index in indices]


class _Remaining(nn.Module):
    """A norm over the channels that stay. What has left comes out as zero, as it does not in the network that is cut."""

    def __init__(self, norm: nn.Module, width: int, gone: Sequence[int]) -> None:
        super().__init__()
        self._whole, self._cut = norm, copy.deepcopy(norm)
        _narrow(self._cut, width, "out", gone)
        self._kept = torch.tensor([channel for channel in range(width) if channel not in set(gone)])

    def forward(self, x: Tensor) -> Tensor:
        layer = norm_of("", self._whole, x)
        axis = -1 if layer is None else layer.axis
        output = torch.zeros_like(x)
        return output.index_copy_(axis, self._kept, self._cut(x.index_select(axis, self._kept)))


def _mixes(module: nn.Module) -> bool:
    """Whether a layer that keeps channels apart computes with all of them: a norm over channels."""
    layer = layer_of("", module)
    return layer is None or layer.kind in ("layer norm", "norm") or (layer.kind == "group norm" and layer.blocks == 1)


def _plain(module: nn.Module) -> bool:
    """Whether torch-pruning knows how to cut this layer."""
    known = layer_of("", module) is not None
    return known and not isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.RNNBase)) and not is_turned_linear(module)


def _narrow(module: nn.Module, width: int, side: Side, indices: Sequence[int]) -> None:
    """Cut a layer that torch-pruning does not know: its tensors, and the attributes that hold how many channels it has."""
    for name, tensor, axis in list(_losing(module, side)):
        gone = _entries(module, indices, width, tensor.shape[axis])
        _replace(module, name, _without(getattr(module, name), axis, gone))
    kept = width - len(indices)
    named = {"in": {"nx", "input_size"}, "out": {"nf", "hidden_size"}}[side] & vars(module).keys()
    for attribute in named or tuple(vars(module)):
        value = getattr(module, attribute)
        if type(value) is int and value == width:
            setattr(module, attribute, kept)
        elif isinstance(value, tuple) and value == (width,):
            setattr(module, attribute, (kept,))


def _remove_groups(convolution: Any, indices: Sequence[int]) -> None:
    """Groups leave a convolution. indices: all their output channels."""
    writes, reads = (width // convolution.groups for width in (convolution.out_channels, convolution.in_channels))
    gone = {index // writes for index in indices}
    outputs = [channel for group in gone for channel in range(group * writes, (group + 1) * writes)]
    inputs = [channel for group in gone for channel in range(group * reads, (group + 1) * reads)]
    _replace(convolution, "weight", _without(convolution.weight, 0, inputs if convolution.transposed else outputs))
    if convolution.bias is not None:
        _replace(convolution, "bias", _without(convolution.bias, 0, outputs))
    convolution.groups -= len(gone)
    convolution.out_channels -= len(outputs)
    convolution.in_channels -= len(inputs)


def _without(tensor: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    gone = set(indices)
    return tensor.detach().index_select(axis, torch.tensor([i for i in range(tensor.shape[axis]) if i not in gone]))


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)


def _parts(model: nn.Module, name: str) -> tuple[Any, *tuple[str, ...]]:
    """The module, and what of it is meant: nothing more, a number, or a tensor and a dimension."""
    module, *part = name.split(":")
    return model.get_submodule(module), *part
