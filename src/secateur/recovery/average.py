"""An average over the weights that a network has had in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Exponential moving average of parameters: a ← d·a + (1 - d)·w, after n steps with d = min(decay, (1 + n) / (10 + n)).

    Zeros that stay stay zero in it; what becomes zero later is for masks to set. Source: Polyak & Juditsky 1992, for averaging; the
    lower decay at the beginning is TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self._student, self._decay, self._steps = student, decay, 0
        self.tensors = {name: p.detach().clone() for name, p in student.named_parameters()}

    def stepped(self) -> None:
        """The optimizer has changed the weights."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        weights = [p.detach() for p in self._student.parameters()]
        averaged = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call] # torch does not annotate it
        averaged([*self.tensors.values()], weights, self._steps)

    def restore(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Go on from what it was after so many steps."""
        self._steps = steps
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])
