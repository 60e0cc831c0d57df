"""What is done to a network: a choice for each group, and the choice spelt out as data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Cut:
    """What is done to one group: keep `kept` channels, ranked by `method`; `method` is None where nothing is removed."""

    method: str | None
    kept: int


@dataclass(frozen=True)
class Candidate:
    """A choice for every group of the search space."""

    cuts: Mapping[str, Cut]

    @property
    def key(self) -> str:
        """Hash of methods and resolved widths: equal cuts are one candidate."""
        listed = [[name, cut.method, cut.kept] for name, cut in sorted(self.cuts.items())]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Removals:
    """Which indices leave which side of which layer: replayable onto the original module, without tracing it again.

    out, in_: layer name → sorted indices into the *original* tensors. roots: group name → root channels removed.
    """

    out: Mapping[str, tuple[int, ...]]
    in_: Mapping[str, tuple[int, ...]]
    roots: Mapping[str, tuple[int, ...]]

    @property
    def key(self) -> str:
        """Hash of the channels that leave: two methods that agree give the same network."""
        listed = sorted((name, list(channels)) for name, channels in self.roots.items() if channels)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CompressedModel:
    """A cut network: the candidate it realises, the removals, the module (float32, evaluation mode)."""

    candidate: Candidate
    removals: Removals
    module: nn.Module
