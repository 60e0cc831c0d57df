"""What can be cut: coupled layers, and those that stay whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["out", "in"]


@dataclass(frozen=True)
class Member:
    """One side of one layer that a group cuts: removing root channel `roots[i]` removes index `indices[i]` there.

    A root channel may own several indices (a flattened feature map), or none (a padded shortcut).
    """

    module: str
    side: Side
    kind: str
    roots: tuple[int, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """Single weights of one layer that may become zero: those that write its output channels `rows`.

    Each row has inputs × kernel of them: input channels, and places of the kernel (1 in a linear layer).
    """

    layer: str
    rows: tuple[int, ...]
    inputs: int
    kernel: int


@dataclass(frozen=True)
class Group:
    """Coupled layers that lose the same channels: the unit of choice. Named after its root layer.

    width: output channels of the root layer. removable: the root channels that may go (a padded shortcut pins the rest); none
    where only weights may become zero. weights: which those are. least: how many channels must stay, one at least. block: it is no
    set of channels but a whole residual block, of width 1, named after its module; `layer_type` is the block's class.
    parameters: elements of all tensors that the group's channels touch. macs: multiply-accumulates of the member layers,
    for one sample.
    """

    name: str
    layer_type: str
    members: tuple[Member, ...]
    width: int
    removable: tuple[int, ...]
    parameters: int
    macs: int
    least: int = 1
    weights: tuple[Weights, ...] = ()
    block: bool = False


@dataclass(frozen=True)
class Excluded:
    """A group that is not cut, and why."""

    name: str
    layer_type: str
    width: int
    reason: str
