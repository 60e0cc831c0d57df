"""What may be chosen for each group, and how a sampler's numbers become a candidate.

Samplers see continuous removed fractions and method names. Rounding to options happens here, so that a sampler never meets a
stepped parameter (Gaussian processes take seconds over those) and equal options become equal candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from secateur.compression.criteria import CRITERIA
from secateur.compression.criteria.channel_tensors import WRITING
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.compression.saliency import Saliencies
from secateur.compression.transforms import TRANSFORMS
from secateur.records import CHANNELS, DEPTH, Candidate, Edit, Excluded, Group, named, scored_as
from secateur.search_spaces.choice import Choice, Option

BISECTIONS = 60
"""To find a threshold among ranks: as many as tell two floating-point numbers apart."""


@dataclass(frozen=True)
class Parameter:
    """One dimension for a sampler: a continuous range, or names to choose from."""

    name: str
    low: float = 0.0
    high: float = 0.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchSpace:
    """Every group's choice, and the groups that stay whole with the reason.

    device_step: channels that the device computes at a time, None where no rule has asked for it.
    """

    choices: Mapping[str, Choice]
    excluded: tuple[Excluded, ...]
    device_step: int | None = None

    @property
    def groups(self) -> list[Group]:
        """The groups that may be cut, in network order."""
        return [choice.group for choice in self.choices.values()]

    @property
    def by_channel(self) -> list[Group]:
        """Those of the groups that may lose channels."""
        return [choice.group for choice in self.choices.values() if CHANNELS in choice.transforms]

    @property
    def methods(self) -> list[str]:
        """All methods that some group admits, in registry order."""
        used = {method for choice in self.choices.values() for method in choice.methods}
        return [name for name in all_methods() if name in used]

    @property
    def transforms(self) -> list[str]:
        """All that can be done to some group."""
        return list(dict.fromkeys(transform for choice in self.choices.values() for transform in choice.transforms))

    @property
    def size(self) -> int:
        """How many different choices there are; several may lead to the same network."""
        return prod(sum(len(c.cuts(method)) for method in c.methods) + c.whole for c in self.choices.values())

    @property
    def whole(self) -> bool:
        """Whether the dense network is in the space: no group must be cut."""
        return all(choice.whole for choice in self.choices.values())

    def parameters(self) -> list[Parameter]:
        """The sampler's dimensions: a removed fraction per group, and a method where there is more than one."""
        listed = []
        for name, choice in self.choices.items():
            low, high = choice.removed
            listed.append(Parameter(f"{name}.removed", low=low, high=high))
            if len(choice.methods) > 1:
                listed.append(Parameter(f"{name}.method", names=choice.methods))
        return listed

    def candidate(self, values: Mapping[str, float | str]) -> Candidate:
        """A sampler's numbers, rounded to options."""
        edits = {}
        for name, choice in self.choices.items():
            method = str(values.get(f"{name}.method", choice.methods[0]))
            edits[name] = choice.nearest(float(values[f"{name}.removed"]), method).edits(method)
        return Candidate.of(edits)

    def values(self, candidate: Candidate) -> dict[str, float | str]:
        """The numbers that lead to a candidate: the other way round."""
        values: dict[str, float | str] = {}
        for name, choice in self.choices.items():
            edits = candidate.edits.get(name, ())
            values[f"{name}.removed"] = choice.ladder[choice.position(edits)].removed
            if len(choice.methods) > 1:
                values[f"{name}.method"] = edits[0].method if edits else choice.methods[0]
        return values

    def uniform(self, removed_fraction: float, method: str) -> Candidate:
        """The same fraction of every group, as far as its ladder allows; a method that a group lacks becomes its first.

        Of a block there are no fractions: by a method of depth that fraction of the blocks leaves, evenly spread, and nothing else
        is done; by others all blocks stay.
        """
        edits = dict(self.mildest().edits)
        blocks = [name for name, choice in self.choices.items() if choice.group.block]
        if named(method)[0] == DEPTH:
            kept = np.floor(np.arange(len(blocks) + 1) * (1 - removed_fraction) + 0.5)
            left_out = [name for name, stays in zip(blocks, np.diff(kept), strict=True) if not stays]
            return Candidate.of(edits | {name: self.choices[name].smallest() for name in left_out})
        for name, choice in self.choices.items():
            if choice.group.block:
                continue
            used = method if method in choice.methods else choice.methods[0]
            edits[name] = choice.nearest(removed_fraction, used).edits(used)
        return Candidate.of(edits)

    def ranked(self, removed: float, method: str, saliencies: Saliencies) -> Candidate:
        """One threshold for all groups: what lies below it is this share of all that the method can take, the nearest to it.

        A channel and a block count as many MACs as they cost, a weight one, so that what different criteria remove is comparable.
        Channels are ranked by the share of their group's saliency that they and the less salient ones hold (per layer that is the
        rank of Lee et al. 2021, LAMP, arXiv:2010.07611); only groups that one layer writes are cut where there are such, for a
        stream that many layers write to is dear. Weights and blocks are ranked by their scores (Han et al. 2015, arXiv:1506.02626),
        with a threshold for each group where scores of different layers say nothing of one another.
        """
        transform, criterion = named(method)
        unit = TRANSFORMS[transform].unit
        ranks, prices = dict[str, NDArray[np.float32]](), dict[str, float]()
        used = self._used_by_channels(method) if unit == "channels" else self._having(method)
        for name, by in used.items():
            choice = self.choices[name]
            scores = np.sort(saliencies[name][scored_as(by)].numpy())
            most = round(choice.cuts(by)[-1].removed * len(scores))
            if unit == "channels" and scores[-1] > 0:
                scores = np.cumsum(scores) / scores.sum()
            ranks[name] = scores[:most]
            prices[name] = 1.0 if unit == "weights" else max(choice.group.macs, 1) / len(scores)
        together = [[*ranks]]
        if unit == "weights" and not WEIGHT_METHODS[criterion].comparable:
            together = [[name] for name in ranks]
        edits = dict(self.mildest().edits)
        for names in together:
            limit = _threshold([ranks[name] for name in names], [prices[name] for name in names], removed)
            for name in names:
                gone = np.searchsorted(ranks[name], limit, side="right") / len(saliencies[name][scored_as(used[name])])
                edits[name] = self.choices[name].nearest(float(gone), used[name]).edits(used[name])
        return Candidate.of(edits)

    def _having(self, method: str) -> dict[str, str]:
        return {name: method for name, choice in self.choices.items() if method in choice.methods}

    def _used_by_channels(self, method: str) -> dict[str, str]:
        """The groups that one threshold cuts, each with the method or, where it lacks that, its first one of channels."""
        used = {
            name: method if method in choice.methods else choice.methods_of(CHANNELS)[0]
            for name, choice in self.choices.items()
            if CHANNELS in choice.transforms
        }
        return {name: by for name, by in used.items() if _writers(self.choices[name].group) == 1} or used

    def random(self, rng: np.random.Generator) -> Candidate:
        """A fraction and a method for every group, drawn evenly."""
        edits = {}
        for name, choice in self.choices.items():
            removed, method = float(rng.uniform(*choice.removed)), str(rng.choice(choice.methods))
            edits[name] = choice.nearest(removed, method).edits(method)
        return Candidate.of(edits)

    def only(self, group: str, option: Option, method: str) -> Candidate:
        """One group edited, all others whole."""
        return Candidate.of({group: option.edits(method)})

    def smallest(self, transform: str | None = None) -> Candidate:
        """The most that a transform can do to every group; see `Choice.smallest`."""
        return Candidate.of({name: choice.smallest(transform) for name, choice in self.choices.items()})

    def mildest(self) -> Candidate:
        """Every group at its widest: the dense network, where the space holds it."""
        return Candidate.of({name: choice.mildest() for name, choice in self.choices.items()})

    def adapted(self, candidate: Candidate) -> Candidate | None:
        """A candidate of another space as this one has it: groups by name, the nearest option, a method of the group's.

        Groups that the other space did not cut become the mildest; None where no group that it cut is in this space.
        """
        known = {name: candidate.edits[name][0] for name in self.choices if name in candidate.edits}
        edits = dict(self.mildest().edits)
        for name, edit in known.items():
            choice = self.choices[name]
            method = edit.method if edit.method in choice.methods else choice.methods[0]
            edits[name] = choice.nearest(1 - edit.kept(choice.group.width), method).edits(method)
        return Candidate.of(edits) if known else None

    def dense(self) -> Candidate:
        """Nothing cut; in the space only where `whole` says so."""
        return Candidate({})


def all_methods() -> list[str]:
    """Every method by name, transform by transform: the criteria of channels, then those of weights, then those of blocks."""
    return [
        Edit(name, 0, criterion).method
        for name, transform in TRANSFORMS.items()
        for criterion in CRITERIA[transform.unit]
    ]


def _threshold(ranks: Sequence[NDArray[np.float32]], prices: Sequence[float], share: float) -> float:
    """The rank up to which what lies below it costs the share of all that is nearest to the one asked for.

    ranks: ascending, from 0 on. prices: of one in each of them.
    """

    def held(limit: float) -> float:
        below = (np.searchsorted(own, limit, side="right") for own in ranks)
        return float(sum(price * count for price, count in zip(prices, below, strict=True)))

    wanted = share * held(np.inf)
    low, high = -1.0, float(max((own[-1] for own in ranks if len(own)), default=0.0))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < wanted else (low, middle)
    return low if wanted - held(low) <= held(high) - wanted else high


def _writers(group: Group) -> int:
    """Layers whose weights write the group's channels."""
    return sum(member.side == "out" and member.kind in WRITING for member in group.members)
