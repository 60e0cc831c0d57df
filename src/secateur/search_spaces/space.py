"""What may be chosen for each group, and how a sampler's numbers become a candidate.

Samplers see continuous removed fractions and method names. Rounding to options happens here, so that a sampler never meets a
stepped parameter (Gaussian processes take seconds over those) and equal options become equal candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import numpy as np

from secateur.compression.criteria import METHODS, available_methods
from secateur.compression.criteria.channel_tensors import WRITING
from secateur.compression.groups import FoundGroups
from secateur.compression.saliency import Saliencies
from secateur.compression.transforms import TRANSFORMS
from secateur.definition import GroupRule, SearchSpaceDefinition, one_of
from secateur.errors import DefinitionError, nearest
from secateur.records import CHANNELS, Candidate, Excluded, Group
from secateur.search_spaces.choice import UNTOUCHED, Choice, Option, rungs


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
    def methods(self) -> list[str]:
        """All methods that some group admits, in registry order."""
        used = {method for choice in self.choices.values() for method in choice.methods}
        return [name for name in METHODS if name in used]

    @property
    def size(self) -> int:
        """How many different choices there are; several may lead to the same network."""
        return prod(len(choice.cuts) * len(choice.methods) + choice.whole for choice in self.choices.values())

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
        return Candidate.of(
            {
                name: choice.nearest(float(values[f"{name}.removed"])).edits(
                    str(values.get(f"{name}.method", choice.methods[0]))
                )
                for name, choice in self.choices.items()
            }
        )

    def values(self, candidate: Candidate) -> dict[str, float | str]:
        """The numbers that lead to a candidate: the other way round."""
        values: dict[str, float | str] = {}
        for name, choice in self.choices.items():
            edits = candidate.edits.get(name, ())
            values[f"{name}.removed"] = choice.ladder[choice.position(edits)].removed
            if len(choice.methods) > 1:
                values[f"{name}.method"] = edits[0].by if edits else choice.methods[0]
        return values

    def uniform(self, removed_fraction: float, method: str) -> Candidate:
        """The same fraction of every group, as far as its ladder allows; a method that a group lacks becomes its first."""
        return Candidate.of(
            {
                name: choice.nearest(removed_fraction).edits(method if method in choice.methods else choice.methods[0])
                for name, choice in self.choices.items()
            }
        )

    def ranked(self, removed_share: float, method: str, saliencies: Saliencies) -> Candidate:
        """One threshold for all groups: of each, the least salient channels go that together hold up to this share of its saliency.

        Only groups that one layer writes are cut where there are such: a stream that many layers write to is dear. Source: the
        share of the layer's energy as a global rank is that of Lee et al. 2021 (LAMP), arXiv:2010.07611, per channel.
        """
        alone = [name for name, choice in self.choices.items() if _writers(choice.group) == 1]
        edits = dict(self.mildest().edits)
        for name in alone or self.choices:
            choice = self.choices[name]
            used = method if method in choice.methods else choice.methods[0]
            scores = np.sort(saliencies[name][used].numpy())
            gone = int((np.cumsum(scores) <= removed_share * scores.sum()).sum())
            edits[name] = choice.nearest(gone / choice.group.width).edits(used)
        return Candidate.of(edits)

    def random(self, rng: np.random.Generator) -> Candidate:
        """A fraction and a method for every group, drawn evenly."""
        return Candidate.of(
            {
                name: choice.nearest(float(rng.uniform(*choice.removed))).edits(str(rng.choice(choice.methods)))
                for name, choice in self.choices.items()
            }
        )

    def only(self, group: str, option: Option, method: str) -> Candidate:
        """One group edited, all others whole."""
        return Candidate.of({group: option.edits(method)})

    def smallest(self) -> Candidate:
        """Every group at its narrowest."""
        return Candidate.of({name: c.ladder[-1].edits(c.methods[0]) for name, c in self.choices.items()})

    def mildest(self) -> Candidate:
        """Every group at its widest: the dense network, where the space holds it."""
        return Candidate.of({name: c.ladder[0].edits(c.methods[0]) for name, c in self.choices.items()})

    def adapted(self, candidate: Candidate) -> Candidate | None:
        """A candidate of another space as this one has it: groups by name, the nearest option, a method of the group's.

        Groups that the other space did not cut become the mildest; None where no group that it cut is in this space.
        """
        known = {name: edit for name in self.choices if (edit := candidate.edit(name)) is not None}
        edits = dict(self.mildest().edits)
        for name, edit in known.items():
            choice = self.choices[name]
            method = edit.by if edit.by in choice.methods else choice.methods[0]
            edits[name] = choice.nearest(1 - edit.level / choice.group.width).edits(method)
        return Candidate.of(edits) if known else None

    def dense(self) -> Candidate:
        """Nothing cut; in the space only where `whole` says so."""
        return Candidate({})


def build_space(
    definition: SearchSpaceDefinition, found: FoundGroups, device_multiple: Callable[[], int] = lambda: 1
) -> SearchSpace:
    """Apply the rules to the groups of a network: for each group, the first rule that matches decides.

    device_multiple: asked, once, where a rule leaves the channel multiple to the device. Raises DefinitionError for unknown
    methods, for a pattern that matches nothing (naming the nearest group), and where no group is left.
    """
    _check_names(definition, found)
    step = device_multiple() if any(rule.multiple_of == "device" for rule in definition.groups) else None
    choices: dict[str, Choice] = {}
    excluded = list(found.excluded)
    for group in found.groups:
        layers = {member.module for member in group.members}
        pattern = next((p for p in definition.exclude if any(fnmatchcase(layer, p) for layer in layers)), None)
        rule = next(
            (r for r in definition.groups if fnmatchcase(group.name, r.match) and group.layer_type in r.types), None
        )
        if pattern is not None:
            reason = f"excluded by '{pattern}'"
        elif rule is None:
            reason = "no rule matches it"
        else:
            multiple = _multiple(group, rule, step or 1)
            ladder = rungs(group, CHANNELS, TRANSFORMS[CHANNELS].levels(group, rule, multiple))
            if rule.removed[0] == 0:
                ladder = (UNTOUCHED, *ladder)
            choice = Choice(group, available_methods(group, rule.methods), ladder, multiple)
            if not choice.methods:
                reason = f"none of its methods ({', '.join(rule.methods)}) applies: it lacks what they need"
            elif choice.ladder in ((), (UNTOUCHED,)):
                limits = f"multiple_of {multiple}, at_least {rule.at_least} and removed {list(rule.removed)}"
                reason = f"{limits} leave no choice"
            else:
                choices[group.name] = choice
                continue
        excluded.append(Excluded(group.name, group.layer_type, group.width, reason))
    if not choices:
        listed = "; ".join(f"{e.name}: {e.reason}" for e in excluded)
        raise DefinitionError(f"{definition.where('groups')}: no group is left to be cut ({listed}).")
    return SearchSpace(choices, tuple(excluded), step)


def _writers(group: Group) -> int:
    """Layers whose weights write the group's channels."""
    return sum(member.side == "out" and member.kind in WRITING for member in group.members)


def _multiple(group: Group, rule: GroupRule, step: int) -> int:
    """The rule's channel multiple for a group. step: the device's, halved until the group has a choice."""
    if rule.multiple_of != "device":
        return rule.multiple_of
    while step >= group.width and step > 1:
        step //= 2
    return step


def _check_names(definition: SearchSpaceDefinition, found: FoundGroups) -> None:
    for i, rule in enumerate(definition.groups):
        for j, method in enumerate(rule.methods):
            one_of(method, METHODS, definition.where("groups", i, "methods", j), "method")
        names = [group.name for group in found.groups] + [group.name for group in found.excluded]
        if not any(fnmatchcase(name, rule.match) for name in names):
            raise _no_match(rule.match, names, definition.where("groups", i, "match"))
    layers = {member.module for group in found.groups for member in group.members}
    layers |= {group.name for group in found.excluded}
    for i, pattern in enumerate(definition.exclude):
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise _no_match(pattern, layers, definition.where("exclude", i))


def _no_match(pattern: str, names: Iterable[str], where: str) -> DefinitionError:
    listed = sorted(names)
    stems = {name.rsplit(".", depth)[0] + ".*" for name in listed for depth in range(1, name.count(".") + 1)}
    hint = nearest(pattern, [*listed, *sorted(stems)])
    shown = ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")  # a line's worth
    return DefinitionError(f"{where}: '{pattern}' matches no group of this model.{hint} Groups: {shown}.")
