"""The criteria by name, what each needs, and which of them say anything about a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from secateur.compression.coupling.layers import RECURRENT
from secateur.compression.criteria import channels
from secateur.compression.criteria.channel_tensors import ChannelTensors
from secateur.plugins import Registry
from secateur.records import Group


@dataclass(frozen=True)
class Method:
    """A criterion: its function, one line for people, and its needs.

    needs_gradients: it is asked after each batch of calibration data, and the root mean square of its answers ranks the channels.
    needs_sample_gradients: after each sample alone, and the mean ranks. needs_grams, needs_activations: Gram matrices or
    activities of the layers that read the group, on calibration data. needs_batch_norm: one in the group. extra: the optional
    dependency that it needs, or nothing.
    """

    score: Callable[[ChannelTensors], Tensor]
    summary: str
    needs_gradients: bool = False
    needs_batch_norm: bool = False
    needs_grams: bool = False
    needs_sample_gradients: bool = False
    needs_activations: bool = False
    extra: str = ""

    @property
    def needs_data(self) -> bool:
        """Whether it sees calibration data."""
        return self.needs_gradients or self.needs_sample_gradients or self.needs_grams or self.needs_activations

    @property
    def needs(self) -> str:
        """What it needs, in words; empty for the weights alone."""
        return "calibration data" if self.needs_data else "batch norm" if self.needs_batch_norm else ""

    def fits(self, group: Group) -> bool:
        """Whether it says anything about a group: some need a batch norm in it, some a layer that reads it."""
        reading = {member.kind for member in group.members if member.side == "in"}
        return (
            bool(group.removable)
            and (not self.needs_batch_norm or any(member.kind == "batch norm" for member in group.members))
            and (not self.needs_grams or bool(reading & {"convolution", "linear"}))
            and (not self.needs_activations or bool(reading - {RECURRENT}))
        )


def _nni(pruner: str, tensors: ChannelTensors) -> Tensor:
    from secateur.compression.criteria import nni_pruners  # an extra, and seconds of imports

    return nni_pruners.taylor(tensors) if pruner == "taylor" else nni_pruners.of_weights(pruner, tensors)


METHODS: Registry[Method] = Registry(
    "secateur.criteria",
    Method,
    {
        "l1": Method(channels.l1, "sum of absolute weights that write the channel"),
        "l2": Method(channels.l2, "Euclidean norm of the weights that write the channel"),
        "next_layer": Method(channels.next_layer, "Euclidean norm of the weights that read the channel"),
        "fpgm": Method(channels.fpgm, "distance to the geometric median of the layer's filters"),
        "taylor": Method(channels.taylor, "first-order change of the loss, on calibration data", needs_gradients=True),
        "hessian": Method(
            channels.hessian,
            "second-order change of the loss, on single calibration samples",
            needs_sample_gradients=True,
        ),
        "activation": Method(
            channels.activation, "mean absolute value of what the readers read there", needs_activations=True
        ),
        "apoz": Method(channels.apoz, "how often what the readers read there is not zero", needs_activations=True),
        "bn_scale": Method(channels.bn_scale, "absolute batch-norm scale", needs_batch_norm=True),
        "lamp": Method(channels.lamp, "layer-adaptive share of the channel's whole energy"),
        "obs": Method(
            channels.obs, "loss of the readers' outputs where their other weights make up for it", needs_grams=True
        ),
        "random": Method(channels.random, "the control: seeded noise"),
        "nni_l1": Method(partial(_nni, "l1"), "what L1NormPruner masks by (NNI)", extra="nni"),
        "nni_l2": Method(partial(_nni, "l2"), "what L2NormPruner masks by (NNI)", extra="nni"),
        "nni_fpgm": Method(partial(_nni, "fpgm"), "what FPGMPruner masks by (NNI)", extra="nni"),
        "nni_taylor": Method(
            partial(_nni, "taylor"),
            "what TaylorPruner masks by, on calibration data (NNI)",
            needs_gradients=True,
            extra="nni",
        ),
    },
)
"""The registry. A project adds its own with `METHODS['name'] = Method(...)` in the module of its workload."""


def available_methods(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that say anything about this group."""
    return tuple(name for name in names if METHODS[name].fits(group))
