"""Samples in portions that run at once in little memory."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from secateur.workloads.pytrees import PyTree, call, length, rows

MOST_ENTRIES = 2**23
"""Entries of the largest output of a layer, all samples of a portion together: 32 MB of float32. Larger ones take longer, too."""
FOR_A_GRADIENT = 16
"""How many times fewer samples run at once where the outputs of all layers are kept for a gradient."""
PROBED = 2
"""Samples that show how large outputs are: dimensions of one are squeezed away by some models."""


@torch.no_grad()
def fitting(model: nn.Module, samples: PyTree, *, graded: bool = False) -> int:
    """How many samples run at once so that no layer's output has more than `MOST_ENTRIES`; at least 1. graded: with a gradient."""
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
    most = MOST_ENTRIES // FOR_A_GRADIENT if graded else MOST_ENTRIES
    return max(1, most * min(PROBED, length(samples)) // largest)


def portions(model: nn.Module, samples: PyTree, *, graded: bool = False) -> list[slice]:
    """Where to divide samples into as few portions as fit, nearly equal ones. graded: with a gradient."""
    count = length(samples)
    if count == 1:
        return [slice(0, 1)]
    number = math.ceil(count / min(count, fitting(model, samples, graded=graded)))
    edges = [round(i * count / number) for i in range(number + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]
