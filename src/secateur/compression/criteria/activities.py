"""What each layer reads in the dense network: how large it is and how often it is not zero, in a stream of calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.compression.compensation.gram import BATCH
from secateur.compression.compensation.readers import before_each
from secateur.compression.coupling.layers import RECURRENT, layer_of
from secateur.records import Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import fitting
from secateur.workloads.pytrees import call
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches


@dataclass(frozen=True)
class Activity:
    """Of a layer's inputs, over all samples and places: mean absolute value, and share that is not 0. Both (inputs,), float64."""

    magnitude: Tensor
    nonzero: Tensor


@torch.no_grad()
def activities_of(model: nn.Module, groups: Sequence[Group], workload: Workload, samples: int) -> dict[str, Activity]:
    """The activity of all layers that read the groups' channels, on so many calibration samples: layer name → activity.

    The dense network runs in evaluation mode. A layer that is called several times sees the inputs of all calls; one that is not
    called has none. Raises WorkloadError where the model does not take a batch.
    """
    axes = {
        member.module: layer.axis
        for group in groups
        for member in group.members
        if member.side == "in"
        and member.kind != RECURRENT  # which may read packed sequences
        and (layer := layer_of(member.module, model.get_submodule(member.module))) is not None
    }
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(axes, 0)

    def add(name: str, _: nn.Module, inputs: Tensor) -> None:
        values = inputs.movedim(axes[name], -1).flatten(0, -2)
        counts[name] += len(values)
        total = torch.stack([values.abs().sum(0, dtype=torch.float64), (values != 0).sum(0, dtype=torch.float64)])
        sums[name] = sums[name] + total if name in sums else total

    with calling("The model on calibration data"):
        size = min(BATCH, fitting(model.eval(), workload.example_inputs))
        with before_each(model, list(axes), add):
            for inputs, _ in in_batches(drawn(workload.data.calibration, samples), size):
                call(model, inputs)
    return {name: Activity(*(total / counts[name])) for name, total in sums.items()}
