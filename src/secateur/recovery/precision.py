"""In which numbers a network is trained: float32 on CPUs, half of it where a GPU is made for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """dtype: of matrix products and convolutions under autocast, None for float32 throughout.

    scaled: whether the loss is scaled against underflow of gradients, and a step that overflows is left out: float16 has the
    range of 6e-8 to 65,504, bfloat16 that of float32.
    """

    dtype: torch.dtype | None = None
    scaled: bool = False


def _has_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def precision_for(device: str, has_bfloat16: Callable[[], bool] = _has_bfloat16) -> Precision:
    """device: `cpu` or `cuda`. has_bfloat16: whether the GPU computes in it (Ampere and newer)."""
    if device != "cuda":
        return Precision()
    return Precision(torch.bfloat16) if has_bfloat16() else Precision(torch.float16, scaled=True)
