"""What is done to a network: edits for each group, and the edits spelt out as steps that can be replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cached_property
from math import ceil, prod
from typing import TYPE_CHECKING, TypeAlias

from secateur.records.groups import Side

if TYPE_CHECKING:
    from torch import nn

CHANNELS = "channels"
"""The transform that removes channels."""
WEIGHTS = "weights"
"""The transform that sets single weights to zero; scores of weights have this in front of the criterion."""
N_M = "n_m"
"""The transform that sets weights to zero in patterns."""
BLOCKS = "blocks"
"""The transform that sets blocks of weights to zero."""
DEPTH = "depth"
"""The transform that leaves whole residual blocks out."""
PER_MILLE = 1000
"""In what levels of masks are counted."""
Level: TypeAlias = int | str


@dataclass(frozen=True)
class Edit:
    """One thing done to one group.

    transform: a name in `secateur.compression.transforms.TRANSFORMS`. level: which of its levels: of `channels`, how many
    channels stay; of masks, how many of a thousand weights stay, a pattern such as `2:4` (two of four stay), or the shape of blocks
    and how many of a thousand of them stay, `4x1@300`; of `depth`, 0: the block does not stay. by: the criterion that chooses what
    goes.
    """

    transform: str
    level: Level
    by: str

    @property
    def method(self) -> str:
        """As definitions name it: the criterion, behind the transform where that is not `channels`."""
        return self.by if self.transform == CHANNELS else f"{self.transform}/{self.by}"

    def kept(self, width: int) -> float:
        """The share of the group that stays. width: channels that the whole group has."""
        if self.transform == N_M:
            kept, among = str(self.level).split(":")
            return int(kept) / int(among)
        level = int(str(self.level).rpartition("@")[2])
        return level / (width if self.transform == CHANNELS else PER_MILLE)

    def keeping(self, share: float, width: int) -> Edit:
        """The same kind of edit, and a milder one, after which about this share of the group stays. width: as in `kept`.

        A block can only be left out.
        """
        share = max(share, self.kept(width))
        if self.transform == DEPTH:
            return self
        if self.transform == CHANNELS:
            return replace(self, level=round(share * width))
        if self.transform == N_M:
            among = int(str(self.level).partition(":")[2])
            return replace(self, level=f"{ceil(share * among)}:{among}")
        shape, at, _ = str(self.level).rpartition("@")
        kept = round(share * PER_MILLE)
        return replace(self, level=f"{shape}{at}{kept}" if at else kept)

    def text(self, width: int) -> str:
        """What stays of a group, in short. width: as in `kept`."""
        if self.transform == CHANNELS:
            return f"{self.level}/{width}"
        if self.transform == DEPTH:
            return "left out"
        if self.transform == N_M:
            return str(self.level)
        shape = str(self.level).partition("@")[0]
        return f"{self.kept(width):.0%} of {f'{shape} blocks' if self.transform == BLOCKS else 'weights'}"


def named(method: str) -> tuple[str, str]:
    """The transform and the criterion that a method's name stands for: the other way round."""
    transform, _, criterion = method.rpartition("/")
    return transform or CHANNELS, criterion


def scored_as(method: str) -> str:
    """What the scores of a method are called: all kinds of masks rank weights by the same ones."""
    transform, criterion = named(method)
    return Edit(WEIGHTS if transform in (N_M, BLOCKS) else transform, 0, criterion).method


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
        return whole if edit is None else int(edit.level)

    def kept(self, group: str, width: int) -> float:
        """The share of a group that stays. width: channels that the whole group has."""
        return prod(edit.kept(width) for edit in self.edits.get(group, ()))


@dataclass(frozen=True)
class Remove:
    """Indices that leave one side of one layer, sorted; they refer to the original tensors.

    layer: the name of a layer, tensor or number, as `secateur.compression.removal` has them.
    """

    layer: str
    side: Side
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Mask:
    """Weights of one layer that become zero.

    layer: its name. rows: output channels of the original layer. zeros: a bit for each of their weights, row by row, 1 for those
    that go, as `secateur.compression.masks` packs them; weights that leave anyway have 0.
    """

    layer: str
    rows: tuple[int, ...]
    zeros: str


@dataclass(frozen=True)
class Bypass:
    """A block that is left out: what it reads is what comes out in its place. layer: the name of its module."""

    layer: str


@dataclass(frozen=True)
class Gate:
    """A residual block that gets a gate, after everything else is done. layer: the name of its module. width: channels it reads."""

    layer: str
    width: int


Step: TypeAlias = Bypass | Remove | Mask | Gate
"""What a plan consists of."""


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are taken: replayable onto the original module, without tracing it again.

    A layer is in at most one removal of a side, and a row of it in at most one mask; a layer of a bypassed block is in none.
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
        for step in self.removals:
            indices[step.side][step.layer] = step.indices
        return indices

    @cached_property
    def bypassed(self) -> tuple[str, ...]:
        """Which blocks are left out."""
        return tuple(step.layer for step in self.steps if isinstance(step, Bypass))

    def leaves_out(self, layer: str) -> bool:
        """Whether a layer is a bypassed block, or in one. layer: as in `Remove`."""
        name = layer.partition(":")[0]
        return any(name == block or name.startswith(f"{block}.") for block in self.bypassed)

    @cached_property
    def removals(self) -> tuple[Remove, ...]:
        """What leaves."""
        return tuple(step for step in self.steps if isinstance(step, Remove))

    @cached_property
    def losing(self) -> tuple[str, ...]:
        """Layers that lose channels or weights and stay."""
        return tuple(dict.fromkeys(step.layer for step in self.steps if isinstance(step, Remove | Mask)))

    @cached_property
    def gates(self) -> Mapping[str, int]:
        """Which blocks get a gate, and how many channels each reads."""
        return {step.layer: step.width for step in self.steps if isinstance(step, Gate)}

    @cached_property
    def masks(self) -> tuple[Mask, ...]:
        """Which weights become zero."""
        return tuple(step for step in self.steps if isinstance(step, Mask))

    @cached_property
    def masked(self) -> tuple[str, ...]:
        """Layers of which weights become zero."""
        return tuple(dict.fromkeys(mask.layer for mask in self.masks))


def _digest(rows: Iterable[tuple[object, ...]]) -> str:
    listed = sorted(json.dumps(row) for row in rows)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CompressedModel:
    """A compressed network: the candidate it realises, the plan, the module (float32, evaluation mode)."""

    candidate: Candidate
    plan: Plan
    module: nn.Module
