"""Gram matrices: second moments of what each layer reads in the dense network, gathered once, in a stream of calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.compression.compensation.readers import Reader, before_each, columns, readers
from secateur.errors import WorkloadError
from secateur.records import Group, Workload
from secateur.workloads.calls import calling
from secateur.workloads.portions import fitting
from secateur.workloads.pytrees import call
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

BATCH = 32
"""Samples that run at once, where they fit."""

Grams = Mapping[str, Tensor]
"""Layer name → (groups, columns + 1, columns + 1), float32: mean of [x, 1] [x, 1]ᵀ over the rows x that its weights meet."""


def grams_of(model: nn.Module, groups: Sequence[Group], workload: Workload, images: int) -> dict[str, Tensor]:
    """The Gram matrices of all layers that read the groups' channels, on so many calibration samples.

    Raises what `gather_grams` raises, and WorkloadError where the model does not take a batch.
    """
    names, _ = readers(model, groups)
    with calling("The model on calibration data"):
        size = min(BATCH, fitting(model.eval(), workload.example_inputs))
        return gather_grams(model, names, in_batches(drawn(workload.data.calibration, images), size))


@torch.no_grad()
def gather_grams(model: nn.Module, names: Sequence[str], batches: Iterable[Any]) -> dict[str, Tensor]:
    """The Gram matrices of the named layers, the dense network in evaluation mode. A layer that is not called has none.

    batches: of `(inputs, targets)`. A layer that is called several times sees the rows of all calls. Raises WorkloadError where
    what a layer reads is not finite.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, layer: Reader, inputs: Tensor) -> None:
        x = columns(layer, inputs).float()
        x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)
        if name not in sums:
            sums[name] = x.new_zeros(len(x), x.shape[2], x.shape[2])
        sums[name].baddbmm_(x.mT, x)

    with before_each(model.eval(), names, add):
        for inputs, _ in batches:
            call(model, inputs)
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise WorkloadError(
                f"What '{name}' reads in the dense model on calibration data is not finite. Check the weights and the input "
                "normalisation of the workload."
            )
        total.div_(total[0, -1, -1].item())  # the constant's square: the number of rows
    return sums
