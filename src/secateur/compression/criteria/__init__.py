"""What is worth least: criteria that score every channel of a group, every weight of a layer, or a whole block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from secateur.compression.criteria.blocks import BLOCK_METHODS
from secateur.compression.criteria.registry import METHODS, Method, available_methods
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.plugins import Registry
from secateur.records import Group

Unit = Literal["channels", "weights", "residual blocks"]
"""What criteria rank for a transform: one score for each channel of a group, for each of its weights, or for a whole block."""


class Criterion(Protocol):
    """What criteria of all units have."""

    @property
    def summary(self) -> str:
        """One line for people."""
        ...

    @property
    def extra(self) -> str:
        """The optional dependency that it needs, or nothing."""
        ...

    @property
    def needs(self) -> str:
        """What else it needs, in words."""
        ...

    @property
    def needs_grams(self) -> bool:
        """Whether it sees Gram matrices."""
        ...

    def fits(self, group: Group) -> bool:
        """Whether it says anything about a group."""
        ...


CRITERIA: Mapping[Unit, Registry[Any]] = {
    "channels": METHODS,
    "weights": WEIGHT_METHODS,
    "residual blocks": BLOCK_METHODS,
}
"""The registry of each unit; every entry is a `Criterion`."""

__all__ = ["CRITERIA", "METHODS", "Criterion", "Method", "Unit", "available_methods"]
