"""Follow every channel to where it arrives, in few passes.

Group testing: first all channels of a layer are marked at once, then halves of them, and so on. Sets of channels that arrive at
different places are marked in one pass, whether they are of one layer or of several. A layer whose n channels are independent
takes 2·log₂ n passes, and layers in a row share them. Channels that each arrive wherever all of them arrive (the channels of one
attention head) are one block and need no further passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from secateur.compression.coupling.experiment import MARKS, Astray, Experiment
from secateur.compression.coupling.layers import Layer

T = TypeVar("T")
Places = NDArray[np.intp]

MOST_TURNS = 256
"""Sets of channels of one layer that may have to be marked one after the other; where there are more, they count as one block."""


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


def follow(experiment: Experiment) -> Followed:
    """Where each output channel of each layer arrives."""
    wholes, lost = list[Block](), dict[str, str]()
    marks: dict[str, list[str]] = {}
    for layer in experiment.layers:
        if layer.passes:
            continue
        reached, astray = _all_at_once(experiment, layer)
        if not reached:
            lost[layer.name] = str(astray)
            continue
        first, *others = reached
        # The second mark is needed only where it gets further than the first.
        marks[layer.name] = [first, *(m for m in others if (reached[m] & ~reached[first]).any())]
        places = np.flatnonzero(np.logical_or.reduce(list(reached.values())))
        wholes.append(Block(layer, range(layer.writes), places))
    divide = _Division(experiment, marks)
    blocks = [block for apart in _turns(wholes) for block in divide(apart)]
    return Followed(tuple(blocks), lost)


def _all_at_once(experiment: Experiment, layer: Layer) -> tuple[dict[str, NDArray[np.bool_]], Astray | None]:
    """Where the marks arrive when all channels of a layer are marked; and what went wrong with the last mark that failed."""
    reached, failed = dict[str, NDArray[np.bool_]](), None
    for mark in MARKS:
        try:
            reached[mark] = experiment.reach({layer.name: range(layer.writes)}, mark)
        except Astray as astray:
            failed = astray
    return reached, failed


class _Division:
    """Halves blocks of several layers in the same passes until each is a single channel or cannot be divided."""

    def __init__(self, experiment: Experiment, marks: Mapping[str, Sequence[str]]) -> None:
        """marks: layer name → those that are needed for its channels."""
        self._experiment, self._marks = experiment, marks

    def __call__(self, blocks: Sequence[Block]) -> list[Block]:
        """blocks: of layers that never arrive at the same place."""
        done = list[Block]()
        while blocks:
            single, large = _split(blocks, lambda block: len(block.channels) == 1)
            nowhere, large = _split(large, lambda block: not len(block.places))
            turns = _turns(large)
            turns, late = turns[:MOST_TURNS], turns[MOST_TURNS:]
            lower = self._observed(turns, lambda channels: channels[: len(channels) // 2])
            upper = self._observed(turns, lambda channels: channels[len(channels) // 2 :])
            pairs = [(b, *halves) for b, *halves in zip(_flat(turns), lower, upper, strict=True)]
            alike, different = _split(pairs, lambda pair: _equal(*pair))
            ends = self._ends([block for block, *_ in alike])
            mixed, apart = _split(list(zip(alike, ends, strict=True)), lambda one: _equal(one[0][0], *one[1]))
            done += [*single, *_flat(late), *(pair[0] for pair, _ in mixed)]
            done += [Block(b.layer, (channel,), b.places) for b in nowhere for channel in b.channels]
            blocks = [half for _, *halves in (*different, *(pair for pair, _ in apart)) for half in halves]
        return done

    def _ends(self, blocks: Sequence[Block]) -> list[tuple[Block, Block]]:
        """The first and the last channel of blocks whose halves arrive at the same places."""
        turns = _turns(blocks)
        found = zip(
            _flat(turns),
            self._observed(turns, lambda channels: channels[:1]),
            self._observed(turns, lambda channels: channels[-1:]),
            strict=True,
        )
        by_block = {id(block): (first, last) for block, first, last in found}
        return [by_block[id(block)] for block in blocks]

    def _observed(
        self, turns: Sequence[Sequence[Block]], part: Callable[[Sequence[int]], Sequence[int]]
    ) -> list[Block]:
        """Where a part of each block arrives, one pass a turn; where a pass fails, at all places of its block."""
        parts = list[Block]()
        for turn in turns:
            channels: dict[str, list[int]] = {}
            for block in turn:
                channels.setdefault(block.layer.name, []).extend(part(block.channels))
            by_mark = [(m, {n: c for n, c in channels.items() if m in self._marks[n]}) for m in MARKS]
            arrived = np.logical_or.reduce([self._seen(marked, mark) for mark, marked in by_mark if marked])
            parts += [Block(b.layer, part(b.channels), b.places[arrived[b.places]]) for b in turn]
        return parts

    def _seen(self, channels: Mapping[str, Sequence[int]], mark: str) -> NDArray[np.bool_]:
        try:
            return self._experiment.reach(channels, mark)
        except Astray:
            return np.ones(self._experiment.outputs.stop, dtype=np.bool_)


def _turns(blocks: Sequence[Block]) -> list[list[Block]]:
    """Divide blocks into as few lists as a greedy choice finds, so that those of one list arrive at different places."""
    turns, taken = list[list[Block]](), list[set[int]]()
    for block in blocks:
        places = set(block.places.tolist())
        number = next((n for n, others in enumerate(taken) if others.isdisjoint(places)), len(turns))
        if number == len(turns):
            turns.append([])
            taken.append(set())
        turns[number].append(block)
        taken[number] |= places
    return turns


def _equal(*blocks: Block) -> bool:
    return all(np.array_equal(block.places, blocks[0].places) for block in blocks[1:])


def _split(items: Sequence[T], true: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    return [item for item in items if true(item)], [item for item in items if not true(item)]


def _flat(lists: Iterable[Sequence[T]]) -> list[T]:
    return [item for one in lists for item in one]
