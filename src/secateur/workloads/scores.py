"""Losses and scores that a workload may use."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor

from secateur.records.workload import logits


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross entropy over the batch, a scalar. outputs: (n, classes), or what holds such `logits`; targets: (n,)."""
    return F.cross_entropy(logits(outputs), targets)


def top1(outputs: Any, targets: Tensor) -> Tensor:
    """1 where the largest output is the target's class, else 0. Returns (n,), float32.

    outputs: (n, classes), or what holds such `logits`; targets: (n,).
    """
    scores: Tensor = logits(outputs)
    return scores.argmax(1).eq(targets).float()
