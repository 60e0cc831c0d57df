"""A data role in batches as a runtime takes them: in memory where it is small, read from the data set each time where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from torch.utils.data import Dataset, Subset

from secateur.evaluators.devices.work import Array, Batches
from secateur.workloads.pytrees import PyTree, joined, length, tensors
from secateur.workloads.roles import collect

HELD_BYTES = 2**28
"""Of the inputs of a role that are kept in memory by each process."""


def role_batches(dataset: Dataset[Any], size: int, *, whole: bool = False) -> tuple[Batches, PyTree]:
    """Batches of so many samples, and all targets. whole: keep the role in memory, however large it is."""
    count = len(dataset)  # type: ignore[arg-type] # map-style datasets have a length
    first, _ = collect(Subset(dataset, [0]))
    if whole or count * sum(x.numpy().nbytes for x in tensors(first)) <= HELD_BYTES:
        inputs, targets = collect(dataset)
        arrays = [x.numpy() for x in tensors(inputs)]
        starts = range(0, length(targets), size)
        return [tuple(np.ascontiguousarray(a[i : i + size]) for a in arrays) for i in starts], targets
    read = _Read(dataset, [range(i, min(i + size, count)) for i in range(0, count, size)])
    return read, joined([collect(Subset(dataset, part))[1] for part in read.parts])


class _Read(Sequence[Sequence[Array]]):
    """Batches that are read when they are asked for. parts: numbers of the samples of each."""

    def __init__(self, dataset: Dataset[Any], parts: Sequence[range]) -> None:
        self._dataset, self.parts = dataset, parts

    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, which: int) -> Sequence[Array]: ...
    @overload
    def __getitem__(self, which: slice) -> Batches: ...
    def __getitem__(self, which: int | slice) -> Sequence[Array] | Batches:
        if isinstance(which, slice):
            return _Read(self._dataset, self.parts[which])
        inputs, _ = collect(Subset(self._dataset, self.parts[which]))
        return tuple(np.ascontiguousarray(x.numpy()) for x in tensors(inputs))
