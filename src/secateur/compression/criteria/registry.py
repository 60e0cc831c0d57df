"""The criteria by name, what each needs, and which of them say anything about a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.compression.criteria import channels
from secateur.compression.criteria.channel_tensors import ChannelTensors
from secateur.plugins import Registry
from secateur.records import Group


@dataclass(frozen=True)
class Method:
    """A criterion: its function, one line for people, and its needs: gradients or Gram matrices on calibration data, a batch norm.

    Scores with gradients are taken batch by batch; their root mean square over the batches ranks the channels.
    """

    score: Callable[[ChannelTensors], Tensor]
    summary: str
    needs_gradients: bool = False
    needs_batch_norm: bool = False
    needs_grams: bool = False


METHODS: Registry[Method] = Registry(
    "secateur.criteria",
    Method,
    {
        "l1": Method(channels.l1, "sum of absolute weights that write the channel"),
        "l2": Method(channels.l2, "Euclidean norm of the weights that write the channel"),
        "next_layer": Method(channels.next_layer, "Euclidean norm of the weights that read the channel"),
        "fpgm": Method(channels.fpgm, "distance to the geometric median of the layer's filters"),
        "taylor": Method(channels.taylor, "first-order change of the loss, on calibration data", needs_gradients=True),
        "bn_scale": Method(channels.bn_scale, "absolute batch-norm scale", needs_batch_norm=True),
        "lamp": Method(channels.lamp, "layer-adaptive share of the channel's whole energy"),
        "obs": Method(
            channels.obs, "loss of the readers' outputs where their other weights make up for it", needs_grams=True
        ),
        "random": Method(channels.random, "the control: seeded noise"),
    },
)
"""The registry. A project adds its own with `METHODS['name'] = Method(...)` in the module of its workload."""


def available_methods(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that say anything about this group: `bn_scale` needs a batch norm among its members, `obs` a reader."""
    has_norm = any(member.kind == "batch norm" for member in group.members)
    is_read = any(member.side == "in" and member.kind in ("convolution", "linear") for member in group.members)
    return tuple(
        name
        for name in names
        if (has_norm or not METHODS[name].needs_batch_norm) and (is_read or not METHODS[name].needs_grams)
    )
