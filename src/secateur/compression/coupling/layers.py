"""What a layer does with channels: how many it reads and writes, along which axis, and which of them belong together inside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

PARAMETER = "parameter"
"""The kind of a dimension of a tensor that belongs to no layer."""
RECURRENT = "recurrent"
"""The kind of an LSTM and the like: an output channel is a hidden unit, in all its layers and directions."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with channels, or one dimension of a tensor that forward() uses by itself.

    name: of the module; `module:tensor:dimension` of a tensor. kind: for people, as in `Member.kind`. axis: of the channels in what
    it takes and gives. reads: input channels, 0 where it has none (an embedding). writes: output channels. passes: it keeps
    channels apart, and channel c comes out as channel c (a norm). blocks: into how many blocks its channels are divided that cannot
    be told apart (groups of a convolution or of a norm).
    """

    name: str
    kind: str
    axis: int
    reads: int
    writes: int
    passes: bool = False
    blocks: int = 1

    @property
    def computes(self) -> bool:
        """Whether it makes channels of what it reads: its output may name a group."""
        return not self.passes and self.kind != PARAMETER


def layer_of(name: str, module: nn.Module) -> Layer | None:
    """What a module does with channels, None where it is none of torch's layers whose channels can be cut."""
    for types, describe in _KINDS:
        if isinstance(module, types):
            return describe(name, module)
    return _turned_linear(name, module) if is_turned_linear(module) else None


@torch.no_grad()
def norm_of(name: str, module: nn.Module, x: Tensor) -> Layer | None:
    """What a norm does with channels, torch's or the model's own, by what it does with an example; None where it is no norm.

    A norm of the model's own is a layer without layers inside, whose parameters are all (channels,); its output has the input's
    shape and does not change when the input is doubled (RMS norm; Zhang & Sennrich 2019, arXiv:1910.07467). x: what it was given.
    """
    known = layer_of(name, module)
    if known is not None and not known.passes:
        return known
    tensors = list(module.parameters())
    if known is None and (any(module.children()) or not tensors or {t.shape for t in tensors} != {tensors[0].shape}):
        return None
    if not tensors or tensors[0].dim() != 1:
        return known
    axis = _channel_axis(module, tensors[0], x)
    if known is not None:
        return known if axis is None else replace(known, axis=axis)
    if axis is None or not _ignores_scale(module, x):
        return None
    return Layer(name, "norm", axis, len(tensors[0]), len(tensors[0]), passes=True)


def _channel_axis(module: nn.Module, weight: Tensor, x: Tensor) -> int | None:
    """The axis along which a layer's tensor of shape (channels,) lies, None where it cannot be told."""
    first = weight[0].clone()
    weight[0] = torch.nan
    try:
        marked = torch.isnan(module(x))
    except Exception:  # noqa: BLE001 # whatever a layer of the user's own raises for NaN
        return None
    finally:
        weight[0] = first
    if marked.shape != x.shape:
        return None
    for axis in range(x.dim()):
        along = marked.movedim(axis, 0).flatten(1)
        if len(along) == len(weight) and along[0].any() and not along[1:].any():
            return axis - x.dim()
    return None


def _ignores_scale(module: nn.Module, x: Tensor) -> bool:
    x = x + torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)
    return torch.allclose(module(x), module(2 * x), rtol=1e-2, atol=1e-4)


def tensors_of(model: nn.Module, layers: Collection[str]) -> Iterator[Layer]:
    """All dimensions of floating-point tensors that belong to none of the named layers."""
    for owner, module in model.named_modules():
        if owner in layers or ".parametrizations" in owner:
            continue
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            if tensor.is_floating_point():
                for dimension, size in enumerate(tensor.shape):
                    if size > 1:
                        yield Layer(f"{owner}:{name}:{dimension}", PARAMETER, dimension, 0, size)


def _convolution(name: str, module: Any) -> Layer:
    kind = "transposed convolution" if module.transposed else "convolution"
    axis = -len(module.kernel_size) - 1
    return Layer(name, kind, axis, module.in_channels, module.out_channels, blocks=module.groups)


def _linear(name: str, module: Any) -> Layer:
    return Layer(name, "linear", -1, module.in_features, module.out_features)


def _recurrent(name: str, module: Any) -> Layer | None:
    if module.proj_size:  # what it gives is not its hidden units
        return None
    return Layer(name, RECURRENT, -1, module.input_size, module.hidden_size)


def is_turned_linear(module: nn.Module) -> bool:
    """Whether it is the linear layer of GPT-2 in `transformers`, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and not isinstance(module, nn.Conv1d)


def _turned_linear(name: str, module: Any) -> Layer:
    return Layer(name, "transposed linear", -1, *module.weight.shape)


def _embedding(name: str, module: Any) -> Layer:
    return Layer(name, "embedding", -1, 0, module.embedding_dim)


def _batch_norm(name: str, module: Any) -> Layer:
    return Layer(name, "batch norm", 1, module.num_features, module.num_features, passes=True)


def _instance_norm(name: str, module: Any) -> Layer:
    axis = -1 - module._get_no_batch_dim() + 1
    return Layer(name, "instance norm", axis, module.num_features, module.num_features, passes=True)


def _layer_norm(name: str, module: Any) -> Layer | None:
    if len(module.normalized_shape) > 1:  # over more than channels: it mixes what it must not
        return None
    kind = "norm" if isinstance(module, nn.RMSNorm) else "layer norm"
    width = module.normalized_shape[0]
    return Layer(name, kind, -1, width, width, passes=True)


def _group_norm(name: str, module: Any) -> Layer:
    width = module.num_channels
    return Layer(name, "group norm", 1, width, width, passes=True, blocks=module.num_groups)


def _prelu(name: str, module: Any) -> Layer | None:
    width = module.num_parameters
    return Layer(name, "prelu", 1, width, width, passes=True) if width > 1 else None


_KINDS: tuple[tuple[type | tuple[type, ...], Callable[[str, Any], Layer | None]], ...] = (
    (nn.modules.conv._ConvNd, _convolution),
    (nn.Linear, _linear),
    (nn.RNNBase, _recurrent),
    (nn.Embedding, _embedding),
    (nn.modules.batchnorm._BatchNorm, _batch_norm),
    (nn.modules.instancenorm._InstanceNorm, _instance_norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
)
