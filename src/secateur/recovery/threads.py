"""How many of torch's threads a training keeps busy: of a small network, one does the work sooner than two that share it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from secateur.compression.costs import layer_costs
from secateur.workloads.pytrees import PyTree

MACS_OF_A_THREAD = 300e6
"""Of a batch. CPU-milliseconds of a step with one thread and with two, which are worth it where they take less than twice as many:
16 and 44 at 120 million MACs (digits, 32 samples), 49 and 99 at 470 million, 63 and 97 at 650 million (ResNet-20, 16 samples), 429
and 437 at 5,200 million. Measured on two cores beside other programs.
"""


@contextlib.contextmanager
def threads_for(model: nn.Module, example_inputs: PyTree, batch: int) -> Iterator[None]:
    """Train inside with as many threads as a batch of this model keeps busy, at most those that torch has.

    The number follows from model and batch alone, since sums, and so the weights, depend on it in their last bits. Recurrent
    layers, whose MACs are not counted, get all threads.
    """
    before = torch.get_num_threads()
    if not any(isinstance(layer, nn.RNNBase) for layer in model.modules()):
        busy = layer_costs(model, example_inputs).total * batch / MACS_OF_A_THREAD
        torch.set_num_threads(max(1, min(before, int(busy))))
    try:
        yield
    finally:
        torch.set_num_threads(before)
