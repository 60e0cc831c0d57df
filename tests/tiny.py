"""The workload of the tests and of the tiny project, which runs in processes of its own: importing this changes nothing there."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from nets import images, residual, shaken
from secateur.records import Workload
from secateur.workloads.roles import split_roles
from secateur.workloads.scores import top1


def make_workload(model: torch.nn.Module | None = None, samples: int = 600) -> Workload:
    """A workload that needs no training: the labels are what the network itself says, a few of them wrong."""
    torch.manual_seed(0)
    model = model or shaken(residual())
    inputs = images(samples)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    labels[::9] = 0
    return Workload(
        name="tiny",
        build_model=lambda: model,
        example_inputs=(inputs[:2],),
        data=split_roles(TensorDataset(inputs, labels)),
        loss=torch.nn.functional.cross_entropy,
        score=top1,
    )
