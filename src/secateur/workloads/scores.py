"""Scores that a workload may use."""

from __future__ import annotations

from torch import Tensor


def top1(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest output is the target's class, else 0. outputs: (n, classes); targets: (n,). Returns (n,), float32."""
    return outputs.argmax(1).eq(targets).float()
