"""From where channels arrive to units and groups.

A unit is a connected component of places: what leaves together because a mark went from one to the other. A group is all units of
one signature, which says how many channels of which sides of which layers a unit owns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secateur.compression.coupling.experiment import Experiment
from secateur.compression.coupling.following import Block, Followed, Places
from secateur.compression.coupling.layers import PARAMETER, Layer
from secateur.records import Member, Side


@dataclass(frozen=True)
class Coupling:
    """Coupled layers. roots: the numbers of its units, of `width` that the root layer has.

    root: the first layer that writes its channels, after which it is named. problem: why it cannot be cut, where that is plain.
    """

    name: str
    root: str
    width: int
    roots: tuple[int, ...]
    members: tuple[Member, ...]
    problem: str | None = None


Spot = tuple[Layer, Side, int]
"""A channel of one side of a layer."""
Unit = list[Spot]


def couplings(experiment: Experiment, followed: Followed) -> list[Coupling]:
    """All groups, in the order of their roots, those that cannot be cut among them."""
    order = {layer.name: number for number, layer in enumerate(experiment.layers)}
    groups: dict[tuple[tuple[tuple[Layer, Side], int], ...], list[Unit]] = defaultdict(list)
    outputs = list[Unit]()
    for unit, is_output in _units(experiment, followed):
        if is_output:
            outputs.append(unit)
        elif any(_writes(spot) for spot in unit):
            groups[tuple(Counter((layer, side) for layer, side, _ in unit).items())].append(unit)
    couplings = [_coupling(units, _reason(units, followed)) for units in groups.values()]
    couplings += [_coupling(units, "its channels are the model's output") for units in _sharing_layers(outputs)]
    couplings.sort(key=lambda c: (order[c.root], c.problem is not None, -len(c.members)))
    return list(_named_apart(couplings))


def _units(experiment: Experiment, followed: Followed) -> Iterator[tuple[Unit, bool]]:
    """Connected components of places, each with whether the model's output is one of them."""
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    spots: list[Spot] = []
    for layer in experiment.layers:
        if not layer.passes:
            spots += [(layer, "in", channel) for channel in range(layer.reads)]
        spots += [(layer, "out", channel) for channel in range(layer.writes)]
    size = experiment.outputs.stop
    together = [np.zeros(1, dtype=np.intp), *_leaving_together(experiment, followed)]  # there may be no others
    first, second = np.repeat([own[0] for own in together], [*map(len, together)]), np.concatenate(together)
    graph = coo_array((np.ones(len(first), dtype=np.bool_), (first, second)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    outputs = set(labels[experiment.outputs.start :].tolist())
    units: dict[int, Unit] = defaultdict(list)
    for spot, label in zip(spots, labels.tolist(), strict=False):
        units[label].append(spot)
    for label, unit in units.items():
        yield unit, label in outputs


def _leaving_together(experiment: Experiment, followed: Followed) -> Iterator[Places]:
    """Places that leave together."""
    for block in _of_channels(followed.blocks):
        yield np.concatenate([experiment.place(block.layer, "out") + np.array(block.channels), block.places])
    for layer in experiment.layers:
        if layer.blocks > 1:
            for channels in _inside(layer):
                yield np.array([experiment.place(layer, side) + channel for side, channel in channels])


def _of_channels(blocks: Iterable[Block]) -> Iterator[Block]:
    """All blocks but those of dimensions of tensors along which there are no channels: marks on all of them arrive everywhere."""
    by_layer: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        by_layer[block.layer.name].append(block)
    for same in by_layer.values():
        arrived = np.concatenate([block.places for block in same])
        if same[0].layer.kind != PARAMETER or (len(same) > 1 and len(np.unique(arrived)) == len(arrived)):
            yield from same


def _inside(layer: Layer) -> Iterator[list[tuple[Side, int]]]:
    """Channels that leave together because their layer computes them in one block."""
    sides: tuple[tuple[Side, int], ...] = (("out", layer.writes),)
    if not layer.passes:
        sides = (("in", layer.reads), *sides)
    for block in range(layer.blocks):
        yield [
            (side, channel)
            for side, width in sides
            for channel in range(block * width // layer.blocks, (block + 1) * width // layer.blocks)
        ]


def _writes(spot: Spot) -> bool:
    layer, side, _ = spot
    return side == "out" and layer.computes


def _reason(units: Sequence[Unit], followed: Followed) -> str | None:
    """Why units of one signature cannot be cut, None where that is not plain."""
    writers = [spot[0] for spot in units[0] if _writes(spot)]
    for layer in writers:
        if layer.name in followed.lost:
            return f"its channels cannot be followed: {followed.lost[layer.name]}"
    if len(units) > 1:
        return None
    width = max(layer.writes for layer in writers)
    return "it has one channel, so none can go" if width == 1 else f"its {width} channels can only leave all together"


def _sharing_layers(units: Iterable[Unit]) -> list[list[Unit]]:
    """Units divided into lists that have no layer in common."""
    lists: list[tuple[set[str], list[Unit]]] = []
    for unit in units:
        names = {layer.name for layer, side, channel in unit if _writes((layer, side, channel))}
        if not names:
            continue
        same = [one for one in lists if one[0] & names]
        lists = [one for one in lists if not one[0] & names]
        lists.append((names.union(*(n for n, _ in same)), [*(u for _, us in same for u in us), unit]))
    return [units for _, units in lists]


def _coupling(units: Sequence[Unit], problem: str | None) -> Coupling:
    """A group of units; it is named after the first layer that writes, and units are numbered as its channels are."""
    layers = list(dict.fromkeys(layer for unit in units for layer, side, c in unit if _writes((layer, side, c))))
    root = next((layer for layer in layers if layer.reads), layers[0])
    owned = [[c for layer, side, c in unit if layer is root and side == "out"] for unit in units]
    firsts = [min(channels, default=-1) for channels in owned]
    ordered = [unit for _, unit in sorted(zip(firsts, units, strict=True), key=lambda pair: pair[0])]
    single = all(len(channels) == 1 for channels in owned)
    roots = sorted(firsts) if single else list(range(len(units)))
    indices: dict[tuple[Layer, Side], list[tuple[int, int]]] = defaultdict(list)
    for number, unit in zip(roots, ordered, strict=True):
        for layer, side, channel in unit:
            if side == "out" or layer.blocks == 1:  # a grouped convolution loses its inputs with its outputs
                indices[layer, side].append((number, channel))
    members = tuple(
        Member(layer.name, side, layer.kind, *map(tuple, zip(*sorted(pairs), strict=True)))
        for (layer, side), pairs in indices.items()
    )
    return Coupling(root.name, root.name, root.writes if single else len(units), tuple(roots), members, problem)


def _named_apart(couplings: Iterable[Coupling]) -> Iterator[Coupling]:
    """A second group of the same layer is named after its first channel; nothing more is said of a layer that is also whole."""
    named = set[str]()
    for coupling in couplings:
        if coupling.root not in named:
            named.add(coupling.root)
            yield coupling
        elif coupling.problem is None:
            first = next(min(m.indices) for m in coupling.members if (m.module, m.side) == (coupling.root, "out"))
            yield replace(coupling, name=f"{coupling.root}:{first}")
