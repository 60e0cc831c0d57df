"""Criteria of whole residual blocks: one score for each, from what it reads and gives; the lowest are left out first."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from torch import Tensor

from secateur.plugins import Registry
from secateur.records import Group


@dataclass(frozen=True)
class BlockPass:
    """What a criterion sees.

    name: of the block. inputs, outputs: what it reads and gives for some samples, (samples, …) both. gradients: derivatives of the
    samples' losses by the outputs, the same shape; None for criteria without.
    """

    name: str
    inputs: Tensor
    outputs: Tensor
    gradients: Tensor | None = None


@dataclass(frozen=True)
class BlockMethod:
    """A criterion: its function, one line for people, and whether it sees gradients.

    score: of each sample, (samples,), at least 0; their mean is the block's.
    """

    score: Callable[[BlockPass], Tensor]
    summary: str
    needs_gradients: bool = False
    extra: ClassVar[str] = ""
    needs: ClassVar[str] = "calibration data"
    needs_grams: ClassVar[bool] = False

    def fits(self, group: Group) -> bool:
        """Whether it says anything about a group: it stands for a residual block."""
        return group.block


def influence(seen: BlockPass) -> Tensor:
    """1 − cosine of input and output, in [0, 2]: a block that hardly turns what it reads is worth little.

    Source: Men et al. 2024 (ShortGPT), arXiv:2403.03853, eq. 1, there for each token; here for a whole sample, images too.
    """
    return (1 - F.cosine_similarity(seen.inputs.flatten(1), seen.outputs.flatten(1))).clamp_min(0.0)


def taylor(seen: BlockPass) -> Tensor:
    """First-order change of each sample's loss if the block handed on what it reads: |Σ gradient · (output − input)|.

    Source: Molchanov et al. 2017, arXiv:1611.06440, of feature maps that become zero; here output becomes input.
    """
    assert seen.gradients is not None  # noqa: S101 # the criterion declares that it needs them
    return (seen.gradients * (seen.outputs - seen.inputs)).flatten(1).sum(1).abs()


def random(seen: BlockPass) -> Tensor:
    """Uniform noise, the same for a block's name at every run: the control arm. In [0, 1)."""
    generator = torch.Generator().manual_seed(zlib.crc32(seen.name.encode()))
    return torch.rand((), generator=generator).expand(len(seen.inputs))


BLOCK_METHODS: Registry[BlockMethod] = Registry(
    "secateur.block_criteria",
    BlockMethod,
    {
        "influence": BlockMethod(influence, "how far what the block gives points away from what it reads"),
        "taylor": BlockMethod(
            taylor, "first-order change of the loss, on single calibration samples", needs_gradients=True
        ),
        "random": BlockMethod(random, "the control: seeded noise"),
    },
)
"""The registry. A project adds its own with `BLOCK_METHODS['name'] = BlockMethod(...)` in the module of its workload."""
