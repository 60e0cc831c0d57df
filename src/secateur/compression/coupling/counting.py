"""Numbers that count channels: attributes such as `num_heads`, which forward() reads and a cut must lower.

No mark shows them. So they are proposed for units of several channels (heads), and for groups that the proof has refuted: integers
of the modules around a group's layers that its units divide evenly. The proof judges, the fewest attributes first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations, islice

from torch import nn

from secateur.compression.coupling.units import Coupling
from secateur.records import Member

ATTRIBUTE = "attribute"
"""The kind of a member that is a number; its name is `module:attribute`."""
MOST_AT_ONCE = 3
"""Attributes that may count the same units."""
MOST_PROPOSALS = 40


def counting(
    refuted: Sequence[Coupling], model: nn.Module, accepted: Collection[Coupling]
) -> Iterator[tuple[Coupling, Sequence[Coupling]]]:
    """Refuted groups with attributes among their members, each proposal with the group that it stands for.

    accepted: proposals that the proof has accepted by now; attributes of the same names are tried first.
    """
    for coupling in refuted:
        members = list(_numbers(coupling, model))
        sets = chain.from_iterable(combinations(members, count) for count in range(1, MOST_AT_ONCE + 1))
        proposals = list(islice(sets, MOST_PROPOSALS))
        helped = [numbers_of(other) for other in accepted]
        proposals.sort(key=lambda chosen: {_name(m) for m in chosen} not in helped)
        for chosen in proposals:
            yield replace(coupling, members=(*coupling.members, *chosen)), [coupling]


def numbers_of(coupling: Coupling) -> frozenset[str]:
    """The names of the attributes among a group's members."""
    return frozenset(_name(m) for m in coupling.members if m.kind == ATTRIBUTE)


def _numbers(coupling: Coupling, model: nn.Module) -> Iterator[Member]:
    """Attributes that may count the units of a group, or the channels of one of its layers."""
    units = len(coupling.roots)
    owned = {len(member.indices) // units for member in coupling.members}
    for name in _around({member.module.partition(":")[0] for member in coupling.members}):
        for attribute, value in vars(model.get_submodule(name)).items():
            if type(value) is not int or value < units or value % units or units == 1:
                continue
            each = value // units
            if any(count % each == 0 for count in owned):
                roots = tuple(root for root in coupling.roots for _ in range(each))
                yield Member(f"{name}:{attribute}", "out", ATTRIBUTE, roots, tuple(range(value)))


def _around(layers: Collection[str]) -> list[str]:
    """The innermost module that holds all these layers, and those between it and them, outer ones first."""
    paths = [layer.split(".")[:-1] for layer in layers]
    shared = next((n for n, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1), min(map(len, paths)))
    return sorted({".".join(path[:end]) for path in paths for end in range(shared, len(path) + 1)})


def _name(member: Member) -> str:
    return member.module.rpartition(":")[2]
