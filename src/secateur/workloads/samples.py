"""Data roles as the pipeline reads them: map-style data sets whose faults name role and sample, in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from secateur.errors import DataUnreadable, WorkloadError
from secateur.workloads.calls import calling, guarded
from secateur.workloads.pairs import Unpaired, paired
from secateur.workloads.pytrees import PyTree

Collate = Callable[[list[Any]], Any]


class Samples(Dataset[Any]):
    """A map-style data set with its collate function; what either raises is one line that names the role and the sample.

    example_inputs: of the model, where its batches are to be inputs and targets, see `secateur.workloads.pairs`.
    """

    def __init__(
        self, dataset: Dataset[Any], collate: Collate, role: str | None = None, example_inputs: PyTree = None
    ) -> None:
        self.dataset, self.role = dataset, role
        self._collate, self._example = guarded(collate, f"{self._name}: the collate function"), example_inputs

    def collate(self, samples: list[Any]) -> Any:
        """A batch. Raises WorkloadError where it is no inputs and targets."""
        batch = self._collate(samples)
        if self._example is None:
            return batch
        try:
            return paired(batch, self._example)
        except Unpaired as unpaired:
            raise WorkloadError(f"{self._name}: a batch of {len(samples)} {unpaired}.") from unpaired

    @property
    def _name(self) -> str:
        return f"The data role '{self.role}'" if self.role else "The data set"

    def __len__(self) -> int:
        with calling(f"{self._name}: its length"):
            return len(self.dataset)  # type: ignore[arg-type] # map-style data sets have a length

    def __getitem__(self, index: int) -> Any:
        with calling(f"{self._name}: sample {index}", kind=DataUnreadable):
            return self.dataset[index]


def map_style(given: Any, name: str) -> Dataset[Any]:
    """What was given as a data role, as a map-style data set. name: of the role, for messages.

    A DataLoader stands for its data set and its collate function. Raises WorkloadError where there is no length or no index.
    """
    if isinstance(given, DataLoader):
        return _of_loader(given, name)
    if isinstance(given, IterableDataset):
        raise WorkloadError(
            f"The data role '{name}' is an iterable data set ({type(given).__name__}): samples are drawn by number, which it "
            "does not allow. Give a map-style data set with __len__ and __getitem__; what fits into memory: list(dataset)."
        )
    for method in ("__len__", "__getitem__"):
        if not hasattr(given, method):
            raise WorkloadError(
                f"The data role '{name}' is a {type(given).__name__} without {method}; a map-style data set with __len__ and "
                "__getitem__ is needed."
            )
    return given  # type: ignore[no-any-return] # it has both methods


def _of_loader(loader: DataLoader[Any], name: str) -> Dataset[Any]:
    dataset, sampler = map_style(loader.dataset, name), loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        dataset = Subset(dataset, list(sampler.indices))
    elif not isinstance(sampler, (SequentialSampler, RandomSampler)):
        raise WorkloadError(
            f"The data role '{name}' is a DataLoader whose {type(sampler).__name__} chooses the samples. Give the data set "
            "itself, or a torch.utils.data.Subset of it."
        )
    if loader.collate_fn in (None, default_collate):
        return dataset
    return Samples(dataset, loader.collate_fn, name)


def collate_of(dataset: Dataset[Any]) -> Collate:
    """How samples of a data set become a batch: its own function where it has one, through all subsets."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset.collate if isinstance(dataset, Samples) else default_collate


def in_batches(
    dataset: Dataset[Any],
    size: int,
    *,
    shuffle: bool = False,
    drop_last: bool = False,
    generator: torch.Generator | None = None,
    pinned: bool = False,
    workers: int = 0,
) -> DataLoader[Any]:
    """Batches of `(inputs, targets)`. The arguments are those of torch's DataLoader; pinned: in page-locked memory."""
    return DataLoader(
        dataset,
        batch_size=size,
        shuffle=shuffle,
        drop_last=drop_last,
        generator=generator,
        collate_fn=collate_of(dataset),
        pin_memory=pinned,
        num_workers=workers,
    )
