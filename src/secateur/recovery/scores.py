"""What a network under training scores: a look at it, which decides nothing."""

from __future__ import annotations

import math

import torch
from torch import nn

from secateur.errors import WorkloadError
from secateur.records import Workload
from secateur.workloads.pytrees import call, length, mapped
from secateur.workloads.roles import drawn
from secateur.workloads.samples import in_batches

SAMPLES = 1000
"""Search samples that are scored, at most: of CIFAR-10 they cost 0.5 % of an epoch of ResNet-20."""


@torch.no_grad()
def score_on_search(student: nn.Module, workload: Workload, batch: int, device: str) -> float:
    """The score on search data, in evaluation mode, in which the student is left. batch: samples at a time. device: the student's.

    Batch norms have their moving statistics of training here. Of a score that is one number for all samples it is the mean over
    batches; NaN where none of them has one (an area under a curve, of one class).
    """
    student.eval()
    total, count = 0.0, 0
    for inputs, targets in in_batches(drawn(workload.data.search, SAMPLES), batch):
        inputs, targets = mapped(lambda x: x.to(device), (inputs, targets))
        try:
            score = torch.as_tensor(workload.score(call(student, inputs), targets)).double().mean()
        except WorkloadError:
            continue
        total, count = total + float(score) * length(targets), count + length(targets)
    return total / count if count else math.nan
