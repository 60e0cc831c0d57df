"""What a layer does with channels: how many it reads and writes, along which axis, and which of them belong together inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Layer:
    """A layer with channels.

    kind: for people, as in `Member.kind`. axis: of the channels in what it takes and gives. reads: input channels, 0 where it has
    none (an embedding). writes: output channels. passes: it keeps channels apart, and channel c comes out as channel c (a norm).
    blocks: into how many blocks its channels are divided that cannot be told apart (groups of a convolution or of a norm).
    """

    name: str
    kind: str
    axis: int
    reads: int
    writes: int
    passes: bool = False
    blocks: int = 1


def layer_of(name: str, module: nn.Module) -> Layer | None:
    """What a module does with channels, None where it is none of the layers whose channels can be cut."""
    for types, describe in _KINDS:
        if isinstance(module, types):
            return describe(name, module)
    return None


def layers_of(model: nn.Module) -> Iterator[Layer]:
    """All layers with channels, in network order."""
    for name, module in model.named_modules():
        if layer := layer_of(name, module):
            yield layer


def _convolution(name: str, module: Any) -> Layer:
    kind = "transposed convolution" if module.transposed else "convolution"
    axis = -len(module.kernel_size) - 1
    return Layer(name, kind, axis, module.in_channels, module.out_channels, blocks=module.groups)


def _linear(name: str, module: Any) -> Layer:
    return Layer(name, "linear", -1, module.in_features, module.out_features)


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
    width = module.normalized_shape[0]
    return Layer(name, "layer norm", -1, width, width, passes=True)


def _group_norm(name: str, module: Any) -> Layer:
    width = module.num_channels
    return Layer(name, "group norm", 1, width, width, passes=True, blocks=module.num_groups)


def _prelu(name: str, module: Any) -> Layer | None:
    width = module.num_parameters
    return Layer(name, "prelu", 1, width, width, passes=True) if width > 1 else None


_KINDS: tuple[tuple[type, Callable[[str, Any], Layer | None]], ...] = (
    (nn.modules.conv._ConvNd, _convolution),
    (nn.Linear, _linear),
    (nn.Embedding, _embedding),
    (nn.modules.batchnorm._BatchNorm, _batch_norm),
    (nn.modules.instancenorm._InstanceNorm, _instance_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
)
