"""What can be done to a group, one module for each kind of edit."""

from __future__ import annotations

from secateur.compression.transforms.base import STAGES, Stage, Transform
from secateur.compression.transforms.channels import Channels

TRANSFORMS: dict[str, Transform] = {transform.name: transform for transform in (Channels(),)}

__all__ = ["STAGES", "TRANSFORMS", "Stage", "Transform"]
