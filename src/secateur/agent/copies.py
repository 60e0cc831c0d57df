"""Opened copies of two models: one after the other, and as many at a time as fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .latency import Block, Pair
from .runtimes import Batch, Session

OPEN_BYTES = 128 * 2**20
"""Of the files of what is open at a time. A runtime needs some three times as much memory."""
SIDES = ("candidate", "reference")


class Copies:
    """Copy number → that copy of both models, opened and run once.

    A copy that no longer fits is closed; where it is needed once more it is opened once more, and lies elsewhere in memory.
    """

    def __init__(
        self, open_side: Callable[[str], Session], size: int, batches: Sequence[Batch], *, whole: bool = False
    ) -> None:
        """open_side: `candidate` or `reference` → a new session. size: bytes of the files of one copy. batches: to be run.

        whole: see `Protocol`.
        """
        self._open, self._batches, self._whole = open_side, batches, whole
        self._fitting = max(1, OPEN_BYTES // max(1, size))
        self._opened: dict[int, dict[str, Session]] = {}

    def __call__(self, copy: int) -> Pair:
        """The blocks of one copy."""
        pair = self._pair(copy, SIDES[::-1] if copy % 2 else SIDES)  # which is opened first decides where it lies, too
        return self._block(pair["candidate"]), self._block(pair["reference"])

    @property
    def candidate(self) -> Session:
        """One that is open, or the first one."""
        copy = next(reversed(self._opened), 0)
        return self._pair(copy, ("candidate",))["candidate"]

    def _pair(self, copy: int, sides: Sequence[str]) -> dict[str, Session]:
        if copy not in self._opened:
            while len(self._opened) >= self._fitting:
                self._opened.pop(next(iter(self._opened)))
            self._opened[copy] = {}
        pair = self._opened[copy]
        for side in sides:
            if side not in pair:
                pair[side] = self._open(side)
                pair[side].run(self._batches[0])  # what is loaded late is loaded now
        return pair

    def _block(self, session: Session) -> Block:
        if not self._whole:
            return lambda first, count: session.block(self._batches, first, count)
        passes = len(self._batches)
        return lambda _, count: [sum(session.block(self._batches, 0, passes)) / passes for _ in range(count)]
