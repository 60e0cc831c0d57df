"""Follow every channel to where it arrives, in few passes.

Group testing: first all channels of a layer are marked at once, then halves of them, and so on. Sets of channels that arrive at
different places are marked in one pass. So are the same channels of all layers of one width, wherever these arrive: as long as no
place sees marks of both halves, what arrives where one channel of them does and where its layer does is that layer's channel. A
network whose channels keep apart takes a pass for each layer and 2·log₂ n for the widest of n channels. Channels that each arrive
wherever all of them arrive (the channels of one attention head) are one block and need no further passes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from secateur.compression.coupling.experiment import FINITE, MARKS, NAN, Astray, Experiment
from secateur.compression.coupling.layers import PARAMETER, Layer

T = TypeVar("T")
Places = NDArray[np.intp]


class _Placed(Protocol):
    @property
    def places(self) -> Places: ...


MOST_TURNS = 256
"""Sets of channels that may have to be marked one after the other; where there are more, they count as one block."""


@dataclass(frozen=True)
class Block:
    """Output channels of one layer and the places (sorted) at which a mark on any of them arrives."""

    layer: Layer
    channels: Sequence[int]
    places: Places


@dataclass(frozen=True)
class Followed:
    """Blocks of all channels that layers write; and, of layers whose channels could not be followed, the reason by name."""

    blocks: tuple[Block, ...]
    lost: dict[str, str]


def follow(experiment: Experiment, watch: Callable[[float], object] = lambda _: None) -> Followed:
    """Where each output channel of each layer arrives. watch: is told what share of the layers is done."""
    wholes, lost = list[Block](), dict[str, str]()
    marks: dict[str, tuple[str, ...]] = {}
    writing = [layer for layer in experiment.layers if not layer.passes]
    for number, layer in enumerate(writing):
        watch(number / len(writing))
        for mark in MARKS:
            try:
                wholes.append(_whole(experiment, layer, mark))
            except Astray as astray:
                lost[layer.name] = str(astray)
            else:
                marks[layer.name] = (mark,)
                break
    first = [block for block in wholes if marks[block.layer.name] == (NAN,)]
    turns = _turns(_chains(experiment, first), lambda chain: chain[0].places)
    further = {block.layer.name: block for turn in turns for block in _further(experiment, _flat(turn))}
    marks |= dict.fromkeys(further, MARKS)
    wholes = [further.get(block.layer.name, block) for block in wholes]
    divide = _Division(experiment, marks)
    alike: dict[tuple[int, tuple[str, ...]], list[Block]] = defaultdict(list)
    for block in wholes:
        alike[block.layer.writes, marks[block.layer.name]].append(block)
    blocks = divide([_Set(tuple(same), same[0].channels, _union(same)) for same in alike.values()])
    return Followed(tuple(blocks), {name: reason for name, reason in lost.items() if name not in marks})


def _whole(experiment: Experiment, layer: Layer, mark: str) -> Block:
    """All channels of a layer, marked at once. Raises Astray."""
    channels = range(layer.writes)
    return Block(layer, channels, np.flatnonzero(experiment.reach({layer.name: channels}, mark)))


def _chains(experiment: Experiment, wholes: Sequence[Block]) -> list[list[Block]]:
    """Layers that arrive, behind their own call, wherever those before them do (what residual blocks add to a stream).

    A pass with marks on all of them shows whether one gets to other places than those of the first.
    """
    chains = list[list[Block]]()
    for whole in sorted(wholes, key=lambda whole: -experiment.behind(whole.layer).sum()):
        behind = experiment.behind(whole.layer)
        for chain in chains:
            before = chain[-1].places
            if np.array_equal(before[behind[before]], whole.places):
                chain.append(whole)
                break
        else:
            chains.append([whole])
    return chains


def _further(experiment: Experiment, turn: Sequence[Block]) -> list[Block]:
    """Those of whole layers, followed with NaN in chains to different places, from which the second mark gets further."""
    try:
        reached = experiment.reach({block.layer.name: block.channels for block in turn}, FINITE)
        if not np.setdiff1d(np.flatnonzero(reached), _union(turn)).size:
            return []
    except Astray:
        if len(turn) == 1:
            return []
    if len(turn) > 1:
        return [block for one in turn for block in _further(experiment, [one])]
    return [Block(turn[0].layer, turn[0].channels, np.union1d(turn[0].places, np.flatnonzero(reached)))]


@dataclass(frozen=True)
class _Set:
    """The same channels of whole layers of one width, and the places (sorted) at which a mark on any of them arrives."""

    wholes: tuple[Block, ...]
    channels: Sequence[int]
    places: Places

    @property
    def blocks(self) -> list[Block]:
        """Layer by layer, where no other channels arrive at these places."""
        if len(self.wholes) == 1:
            return [Block(self.wholes[0].layer, self.channels, self.places)]
        return [Block(w.layer, self.channels, _both(self.places, w.places)) for w in self.wholes]

    def narrowed(self, channels: Sequence[int], places: Places) -> _Set:
        """Some of the channels."""
        return _Set(self.wholes, channels, places)

    def apart(self, mixed: Places) -> list[_Set]:
        """Layers that do not arrive at these places stay together; the others are divided by their names, or each is alone."""
        pure, others = _split(self.wholes, lambda whole: not _both(mixed, whole.places).size)
        by_name: dict[str, list[Block]] = defaultdict(list)
        for whole in others:
            by_name[re.sub(r"\d+", "", whole.layer.name)].append(whole)
        parts = [pure, *by_name.values()] if pure or len(by_name) > 1 else [[whole] for whole in others]
        return [_Set(tuple(p), self.channels, _both(self.places, _union(p))) for p in parts if p]


class _Division:
    """Halves sets of channels in the same passes until each is a single channel or cannot be divided."""

    def __init__(self, experiment: Experiment, marks: Mapping[str, Sequence[str]]) -> None:
        """marks: layer name → those that are needed for its channels."""
        self._experiment, self._marks = experiment, marks

    def __call__(self, sets: Sequence[_Set]) -> list[Block]:
        """The blocks of all layers of the sets."""
        done = list[_Set]()
        while sets:
            single, large = _split(sets, lambda one: len(one.channels) == 1)
            nowhere, large = _split(large, lambda one: not len(one.places))
            turns = _turns(large)
            turns, late = turns[:MOST_TURNS], turns[MOST_TURNS:]
            lower = self._observed(turns, lambda channels: channels[: _middle(len(channels))])
            upper = self._observed(turns, lambda channels: channels[_middle(len(channels)) :])
            triples = list(zip(_flat(turns), lower, upper, strict=True))
            mixed, clear = _split(
                triples, lambda three: len(three[0].wholes) > 1 and bool(_both(three[1].places, three[2].places).size)
            )
            alike, different = _split(clear, lambda three: _equal(*three))
            ends = self._ends([one for one, *_ in alike])
            whole, apart = _split(list(zip(alike, ends, strict=True)), lambda pair: _equal(pair[0][0], *pair[1]))
            done += [*single, *_flat(late), *(three[0] for three, _ in whole)]
            done += [one.narrowed((channel,), one.places) for one in nowhere for channel in one.channels]
            halves = [two for _, *two in (*different, *(three for three, _ in apart))]
            crossing, halves = _split(halves, _cross)
            done += _flat(crossing)
            sets = _flat(halves)
            sets += [part for one, a, b in mixed for part in one.apart(_both(a.places, b.places))]
        return [block for one in done for block in one.blocks]

    def _ends(self, sets: Sequence[_Set]) -> list[tuple[_Set, _Set]]:
        """The first and the last channel of sets whose halves arrive at the same places."""
        turns = _turns(sets)
        pairs = zip(
            _flat(turns),
            self._observed(turns, lambda channels: channels[:1]),
            self._observed(turns, lambda channels: channels[-1:]),
            strict=True,
        )
        by_set = {id(one): (first, last) for one, first, last in pairs}
        return [by_set[id(one)] for one in sets]

    def _observed(self, turns: Sequence[Sequence[_Set]], part: Callable[[Sequence[int]], Sequence[int]]) -> list[_Set]:
        """Where a part of each set arrives, one pass a turn; where a pass fails, at all places of its set."""
        parts = list[_Set]()
        for turn in turns:
            own = [part(one.channels) for one in turn]
            channels: dict[str, list[int]] = defaultdict(list)
            for one, some in zip(turn, own, strict=True):
                for whole in one.wholes:
                    channels[whole.layer.name].extend(some)
            by_mark = [(m, {n: c for n, c in channels.items() if m in self._marks[n]}) for m in MARKS]
            arrived = np.logical_or.reduce([self._seen(marked, mark) for mark, marked in by_mark if marked])
            places = [one.places[arrived[one.places]] for one in turn]
            parts += [one.narrowed(*narrow) for one, *narrow in zip(turn, own, places, strict=True)]
        return parts

    def _seen(self, channels: Mapping[str, Sequence[int]], mark: str) -> NDArray[np.bool_]:
        try:
            return self._experiment.reach(channels, mark)
        except Astray:
            return np.ones(self._experiment.outputs.stop, dtype=np.bool_)


def _cross(halves: Sequence[_Set]) -> bool:
    """Whether both halves of a tensor's dimension arrive at one place: along it there are no channels (see `units`)."""
    one, other = halves
    return one.wholes[0].layer.kind == PARAMETER and bool(_both(one.places, other.places).size)


def _middle(count: int) -> int:
    """Where to divide so many channels: at a power of two, as heads do and other blocks of channels."""
    return 1 << (count - 1).bit_length() - 1


def _turns(items: Sequence[T], places: Callable[[T], Places] = attrgetter("places")) -> list[list[T]]:
    """Divide items into as few lists as a greedy choice finds, so that those of one list arrive at different places."""
    turns, taken = list[list[T]](), list[set[int]]()
    for item in items:
        own = set(places(item).tolist())
        number = next((n for n, others in enumerate(taken) if others.isdisjoint(own)), len(turns))
        if number == len(turns):
            turns.append([])
            taken.append(set())
        turns[number].append(item)
        taken[number] |= own
    return turns


def _both(left: Places, right: Places) -> Places:
    """What is in both, in the time that the smaller one takes."""
    few, many = (left, right) if len(left) <= len(right) else (right, left)
    return few[many[many[:-1].searchsorted(few)] == few] if len(few) else few


def _union(blocks: Sequence[_Placed]) -> Places:
    return np.unique(np.concatenate([block.places for block in blocks]))


def _equal(*blocks: _Placed) -> bool:
    return all(np.array_equal(block.places, blocks[0].places) for block in blocks[1:])


def _split(items: Sequence[T], true: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    return [item for item in items if true(item)], [item for item in items if not true(item)]


def _flat(lists: Iterable[Sequence[T]]) -> list[T]:
    return [item for one in lists for item in one]
