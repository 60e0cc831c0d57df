"""Constant pads of the channel dimension (option-A shortcuts, He et al. 2015) in torch-pruning's graph.

torch-pruning 1.6 takes such a pad for an element-wise operation and would couple channel `c` before it with `c` behind it; here it
becomes a node of its own, whose edges shift by the offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch_pruning import ops


class ChannelPad(nn.Module):
    """Stands in the graph for a constant pad of the channel dimension: `before` channels of zeros come first."""

    def __init__(self, channels_in: int, before: int, channels_out: int) -> None:
        super().__init__()
        self.channels_in, self.before, self.channels_out = channels_in, before, channels_out


class _Pruner(ops.DummyPruner):  # type: ignore[misc] # torch-pruning publishes no types
    """A pad has no tensors to cut; it tells the shape inference how many channels it takes and gives."""

    def prune_out_channels(self, layer: ChannelPad, idxs: Sequence[int]) -> ChannelPad:  # noqa: ARG002 # their signature
        return layer

    prune_in_channels = (
        prune_out_channels  # one function for both sides is how torch-pruning states "sides are coupled"
    )

    def get_out_channels(self, layer: ChannelPad) -> int:
        return layer.channels_out

    def get_in_channels(self, layer: ChannelPad) -> int:
        return layer.channels_in


PRUNER = _Pruner()
"""As torch-pruning wants it registered for ChannelPad."""


class _Shift:
    """Maps channel indices across a pad; root channels that land in the padding are pinned: the zeros cannot shrink."""

    def __init__(self, offset: int, size: int, pinned: set[int]) -> None:
        self.offset, self.size, self.pinned = offset, size, pinned

    def __call__(self, indices: list[Any]) -> list[Any]:
        moved = []
        for index in indices:
            target = index.idx + self.offset
            if 0 <= target < self.size:
                moved.append(index._replace(idx=target))
            else:
                self.pinned.add(index.root_idx)
        return moved


def shift_channel_pads(nodes: Mapping[Any, Any], pinned: set[int]) -> None:
    """Put the offset on every edge behind a pad; the edges before it already speak the pad's input coordinates.

    nodes: torch-pruning's, by module. pinned: filled, when indices are mapped, with root channels that land in the padding.
    """
    for pad, node in nodes.items():
        if not isinstance(pad, ChannelPad):
            continue
        for behind in node.outputs:
            for edge in [e for e in node.dependencies if e.target is behind]:
                _add_mapping(edge, _Shift(pad.before, pad.channels_out, pinned))
            for edge in [e for e in behind.dependencies if e.target is node]:
                _add_mapping(edge, _Shift(-pad.before, pad.channels_in, pinned))


def _add_mapping(edge: Any, mapping: _Shift) -> None:
    slot = 0 if edge.index_mapping[0] is None else 1
    edge.index_mapping[slot] = mapping


def channel_pad(grad_fn: Any) -> ChannelPad | None:
    """The pad that this autograd node computes, if it pads the channel dimension (1; the only one of a matrix)."""
    if grad_fn is None or not grad_fn.name().startswith("ConstantPadNd"):
        return None
    shape = tuple(grad_fn._input_metadata[0].shape)  # the shape of the forward output
    amounts = list(grad_fn._saved_pad)
    position = 2 * (len(shape) - 2)  # pads are listed from the last dimension backwards, two numbers each
    before, after = [*amounts[position : position + 2], 0, 0][:2]
    if before == 0 and after == 0:
        return None
    return ChannelPad(shape[1] - before - after, before, shape[1])
