"""What can be done to a group, one module for each kind of edit."""

from __future__ import annotations

from secateur.compression.transforms.base import STAGES, Stage, Transform
from secateur.compression.transforms.blocks import Blocks
from secateur.compression.transforms.channels import Channels
from secateur.compression.transforms.depth import Depth
from secateur.compression.transforms.n_m import NM
from secateur.compression.transforms.weights import Weights

TRANSFORMS: dict[str, Transform] = {
    transform.name: transform for transform in (Channels(), Weights(), NM(), Blocks(), Depth())
}

__all__ = ["STAGES", "TRANSFORMS", "Stage", "Transform"]
