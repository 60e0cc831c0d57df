"""Batch norms behind a training: their statistics taken anew, of whole weights that no longer change.

In training they are moving averages over the last few batches, of weights that still change and of augmented samples. Source: Wu &
Johnson 2021 (Rethinking "Batch" in BatchNorm, "precise" statistics), arXiv:2105.07576.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from secateur.compression.compensation.batch_norm import batch_norms
from secateur.records import Workload
from secateur.workloads.calls import calling
from secateur.workloads.pytrees import call, length, mapped
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

SAMPLES = 2048
"""Training samples that statistics are taken of, and calibration samples that decide, at most."""


@torch.no_grad()
def settle(student: nn.Module, workload: Workload, batch: int, device: str) -> None:
    """Give batch norms, in place, the mean statistics over training samples without augmentation, where that lowers the loss.

    The loss on calibration samples decides. batch: samples at a time. device: the student's. Raises WorkloadError where the model
    or its loss does.
    """
    norms = [*batch_norms(student).values()]
    size = len(workload.data.train)  # type: ignore[arg-type] # map-style
    if not norms or size < 2:
        return
    before = copy.deepcopy([norm.state_dict() for norm in norms])
    moved = _loss(student, workload, batch, device)
    momenta = [norm.momentum for norm in norms]
    student.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for inputs, _ in in_batches(drawn(workload.data.train, SAMPLES), min(batch, size), drop_last=True):
        with calling("The model on training samples"):
            call(student, mapped(lambda x: x.to(device), inputs))
    student.eval()
    for norm, momentum, old in zip(norms, momenta, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:  # in a block that no sample has gone through
            norm.load_state_dict(old)
    if not _loss(student, workload, batch, device) < moved:
        for norm, old in zip(norms, before, strict=True):
            norm.load_state_dict(old)


def _loss(student: nn.Module, workload: Workload, batch: int, device: str) -> float:
    """Mean on calibration samples."""
    total, count = 0.0, 0
    student.eval()
    for inputs, targets in in_batches(drawn(workload.data.calibration, SAMPLES), batch):
        inputs, targets = mapped(lambda x: x.to(device), (inputs, targets))
        with calling("The model or its loss on calibration samples"):
            total += float(workload.loss(call(student, inputs), targets)) * length(targets)
        count += length(targets)
    return total / max(count, 1)
