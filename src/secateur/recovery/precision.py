"""In which numbers a network is trained: float32 on CPUs, half of it where a GPU is made for that, or as a definition says."""

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


NAMED = {"fp32": Precision(), "bf16": Precision(torch.bfloat16), "fp16": Precision(torch.float16, scaled=True)}


def _has_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def precision_for(device: str, wanted: str = "auto", has_bfloat16: Callable[[], bool] = _has_bfloat16) -> Precision:
    """device: `cpu` or `cuda`. wanted: as in `recover`. has_bfloat16: whether the GPU computes in it (Ampere and newer)."""
    if wanted != "auto":
        return NAMED[wanted]
    if device != "cuda":
        return NAMED["fp32"]
    return NAMED["bf16" if has_bfloat16() else "fp16"]
