"""Scores that a workload may use."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.records.workload import logits


def top1(outputs: Any, targets: Tensor) -> Tensor:
    """1 where the largest output is the target's class, else 0. Returns (n,), float32.

    outputs: (n, classes), or what holds such `logits`; targets: (n,).
    """
    scores: Tensor = logits(outputs)
    return scores.argmax(1).eq(targets).float()
