"""What is done to a network: edits for each group, and the edits spelt out as steps that can be replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from secateur.records.groups import Side

if TYPE_CHECKING:
    from torch import nn

CHANNELS = "channels"
"""The transform that removes channels."""


@dataclass(frozen=True)
class Edit:
    """One thing done to one group.

    transform: a name in `secateur.compression.transforms.TRANSFORMS`. level: which of its levels; of `channels`, how many
    channels stay. by: the criterion that chooses what goes.
    """

    transform: str
    level: int
    by: str


@dataclass(frozen=True)
class Candidate:
    """What is done to each group, by name: its edits in the order of their stages. An untouched group is absent."""

    edits: Mapping[str, tuple[Edit, ...]]

    @classmethod
    def of(cls, edits: Mapping[str, Sequence[Edit]]) -> Candidate:
        """A candidate from the edits of groups, of which some may have none."""
        return cls({group: tuple(chosen) for group, chosen in edits.items() if chosen})

    @property
    def key(self) -> str:
        """Hash of all edits: equal edits are one candidate."""
        return _digest((group, *astuple(edit)) for group, edits in self.edits.items() for edit in edits)

    def edit(self, group: str, transform: str = CHANNELS) -> Edit | None:
        """What a transform does to a group; None where it leaves it alone."""
        return next((edit for edit in self.edits.get(group, ()) if edit.transform == transform), None)

    def width(self, group: str, whole: int) -> int:
        """How many channels of a group stay. whole: how many it has."""
        edit = self.edit(group)
        return whole if edit is None else edit.level


@dataclass(frozen=True)
class Remove:
    """Indices that leave one side of one layer, sorted; they refer to the original tensors.

    layer: the name of a layer, tensor or number, as `secateur.compression.removal` has them.
    """

    layer: str
    side: Side
    indices: tuple[int, ...]


Step: TypeAlias = Remove
"""What a plan consists of."""


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are taken: replayable onto the original module, without tracing it again.

    A layer is in at most one step of a kind and side.
    """

    steps: tuple[Step, ...] = ()

    @cached_property
    def key(self) -> str:
        """Hash of all steps: two candidates with the same steps are one network."""
        return _digest((type(s).__name__, *(getattr(s, f.name) for f in fields(s))) for s in self.steps)

    @cached_property
    def removed(self) -> Mapping[Side, Mapping[str, tuple[int, ...]]]:
        """Which indices leave: side → layer → indices into the original tensors."""
        indices: dict[Side, dict[str, tuple[int, ...]]] = {"out": {}, "in": {}}
        for step in self.steps:
            indices[step.side][step.layer] = step.indices
        return indices


def _digest(rows: Iterable[tuple[object, ...]]) -> str:
    listed = sorted(json.dumps(row) for row in rows)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CompressedModel:
    """A compressed network: the candidate it realises, the plan, the module (float32, evaluation mode)."""

    candidate: Candidate
    plan: Plan
    module: nn.Module
