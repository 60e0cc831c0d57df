"""The batches of a training by number: what they hold, and what is drawn for them, follows from seed and number alone."""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import lru_cache, partial
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from secateur.agent.processes import die_with
from secateur.errors import SecateurError
from secateur.recovery.randomness import drawn_from, sow
from secateur.workloads.samples import collate_of

ORDER, SAMPLES = "order", "samples"


class Batches(Dataset[Any]):
    """Batch n of a training, for any n; each pass over the data set has an order of its own, and drops its last samples.

    Augmentation on access is the same in whichever process a batch is read, and wherever reading began.
    """

    def __init__(self, dataset: Dataset[Any], size: int, in_a_pass: int, seed: int) -> None:
        """size: samples of a batch. in_a_pass: batches of it."""
        self._dataset, self._size, self._in_a_pass, self._seed = dataset, size, in_a_pass, seed
        self._collate = collate_of(dataset)
        self._order = lru_cache(1)(self._permutation)

    def __getitem__(self, number: int) -> Any:
        """What is raised is returned: out of a worker process, torch would raise it again with a traceback as its message."""
        rows = self.samples(number)
        sow(self._seed, SAMPLES, number)
        try:
            return self._collate([self._dataset[row] for row in rows])
        except SecateurError as error:
            return error

    def samples(self, number: int) -> list[int]:
        """The numbers of the samples of a batch, in the data set."""
        one_pass, batch = divmod(number, self._in_a_pass)
        return self._order(one_pass)[batch * self._size : (batch + 1) * self._size]

    def _permutation(self, one_pass: int) -> list[int]:
        size = len(self._dataset)  # type: ignore[arg-type] # map-style
        return torch.randperm(size, generator=drawn_from(self._seed, ORDER, one_pass)).tolist()


def read(batches: Batches, first: int, workers: int, *, pinned: bool) -> Generator[Any]:
    """Batches from a number on, without end. workers: processes that read them ahead. pinned: in page-locked memory."""
    loader = DataLoader(
        batches,
        batch_size=None,  # they are batches already
        sampler=count(first),
        num_workers=workers,
        worker_init_fn=partial(_end_with, os.getpid()),
        pin_memory=pinned,
        collate_fn=_as_it_is,
    )
    for batch in loader:
        if isinstance(batch, SecateurError):
            raise batch
        yield batch


def _end_with(parent: int, _number: int) -> None:
    """A process that reads does not outlive the one that trains."""
    if os.getppid() == parent:  # it was forked from it
        die_with(parent)


def _as_it_is(batch: Any) -> Any:
    return batch
