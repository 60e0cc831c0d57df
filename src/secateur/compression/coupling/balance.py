"""Units that can only leave in step: where forward() divides channels evenly, all parts must lose equally many.

Halves of a layer that are taken apart by `chunk(2)`, channels that a `view` shuffles, a norm over blocks of channels, a layer whose
output is shaped like its input: no mark shows this, since each channel goes its own way. So larger units are proposed of what the
proof has refuted: one channel of each part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from secateur.compression.coupling.units import Coupling
from secateur.records import Member, Side

MOST_PARTS = 8
"""Into how many parts a group is thought to be divided at most."""


def balanced(refuted: Sequence[Coupling]) -> Iterator[tuple[Coupling, Sequence[Coupling]]]:
    """Larger units of refuted groups, each proposal with those that it stands for.

    Of groups with equally many units that have a layer in common, the first of each are one unit, the second, and so on. Of one
    group, units at the same position in each of its parts, or neighbours.
    """
    for coupling in refuted:
        layers = {member.module for member in coupling.members}
        siblings = [
            other
            for other in refuted
            if len(other.roots) == len(coupling.roots) and any(member.module in layers for member in other.members)
        ]
        if len(siblings) > 1 and siblings[0] is coupling:
            yield _joined(siblings), siblings
        for parts in range(2, MOST_PARTS + 1):
            size, rest = divmod(len(coupling.roots), parts)
            if size > 1 and not rest:
                yield _renumbered(coupling, [i % size for i in range(len(coupling.roots))]), [coupling]
                yield _renumbered(coupling, [i // parts for i in range(len(coupling.roots))]), [coupling]


def _joined(couplings: Sequence[Coupling]) -> Coupling:
    """One group whose units consist of one unit of each."""
    numbered = [_renumbered(c, range(len(c.roots))) for c in couplings]
    pairs: dict[tuple[str, Side, str], set[tuple[int, int]]] = defaultdict(set)
    for coupling in numbered:
        for m in coupling.members:
            pairs[m.module, m.side, m.kind] |= set(zip(m.roots, m.indices, strict=True))
    members = tuple(Member(*key, *map(tuple, zip(*sorted(own), strict=True))) for key, own in pairs.items())
    return Coupling(couplings[0].root, couplings[0].root, numbered[0].width, numbered[0].roots, members)


def _renumbered(coupling: Coupling, numbers: Sequence[int]) -> Coupling:
    """The same channels in other units. numbers: of the unit to which each present one belongs."""
    new = dict(zip(coupling.roots, numbers, strict=True))
    members = []
    for m in coupling.members:
        pairs = sorted((new[root], index) for root, index in zip(m.roots, m.indices, strict=True))
        members.append(Member(m.module, m.side, m.kind, *map(tuple, zip(*pairs, strict=True))))
    roots = tuple(sorted(set(numbers)))
    return Coupling(coupling.name, coupling.root, len(roots), roots, tuple(members))
