"""Calibration data in portions that run at once in little memory."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from secateur.workloads.pytrees import PyTree, call, length, rows

MOST_ENTRIES = 2**24
"""Entries of the largest output of a layer, all samples of a portion together: 64 MB of float32."""
PROBED = 2
"""Samples that show how large outputs are: dimensions of one are squeezed away by some models."""


@torch.no_grad()
def fitting(model: nn.Module, samples: PyTree) -> int:
    """How many samples run at once so that no layer's output has more than `MOST_ENTRIES`; at least one."""
    largest = 1

    def look(_: nn.Module, __: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        call(model, rows(samples, slice(PROBED)))
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, MOST_ENTRIES * min(PROBED, length(samples)) // largest)


def portions(model: nn.Module, samples: PyTree) -> list[PyTree]:
    """The samples in as few portions as fit, nearly equal ones."""
    count = length(samples)
    number = math.ceil(count / min(count, fitting(model, samples)))
    edges = [round(i * count / number) for i in range(number + 1)]
    return [rows(samples, slice(start, end)) for start, end in pairwise(edges)]
