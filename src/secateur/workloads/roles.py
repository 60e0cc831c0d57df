"""The five data roles: derived by one documented, seeded rule where the user gives fewer, and checked for overlap.

The rule, in this order, each part drawn from a seeded permutation and never returned:

    test          given, else 15 % of train
    selection     given, else 10 % of train
    search        given, else 10 % of train, at most 2,000 samples
    calibration   given, else 5 % of train, at least 64 and at most 512 samples
    train         what is left

A model that was trained on the very samples that are now held out scores too well on them. Then give `search`, `selection`
and `test` yourself, from data that the training never saw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from secateur.errors import WorkloadError
from secateur.records import ROLES, DataRoles
from secateur.workloads.calls import calling
from secateur.workloads.pairs import arguments
from secateur.workloads.pytrees import PyTree, tensors
from secateur.workloads.samples import Samples, in_batches, map_style

_SHARES = {
    "test": (0.15, 1, None),
    "selection": (0.10, 1, None),
    "search": (0.10, 1, 2000),
    "calibration": (0.05, 64, 512),
}

_ORDER = 0
"""Seed of the order in which samples of a role are drawn. No setting: the same samples in every process and run."""
_LOOKED_AT = 512
"""Samples of a role whose class labels are compared."""
_CHANCE = 1e-3
"""Probability below which a draw of one class is not taken for chance."""

MAY_OVERLAP = {("train", "calibration")}
"""Calibration may be a part of train: neither scores anything."""


def split_roles(train: Dataset[Any], *, seed: int = 0, **given: Dataset[Any]) -> DataRoles:
    """Fill the roles that are not given from `train`, by the rule at the top of this module.

    given: any of calibration, search, selection, test. Raises WorkloadError where train is too small to be split.
    """
    unknown = set(given) - set(_SHARES)
    if unknown:
        raise WorkloadError(f"There is no data role '{sorted(unknown)[0]}'; roles are {', '.join(ROLES)}.")
    train = map_style(train, "train")
    size = len(train)  # type: ignore[arg-type] # map-style datasets have a length
    order = np.random.default_rng(seed).permutation(size)
    parts: dict[str, Dataset[Any]] = dict(given)
    taken = 0
    for role, (share, least, most) in _SHARES.items():
        if role in given:
            continue
        count = max(least, round(share * size))
        count = min(count, most) if most else count
        parts[role] = Subset(train, order[taken : taken + count].tolist())
        taken += count
    if size - taken < max(1, size // 4):
        raise WorkloadError(f"{size} training samples are too few to hold out {taken} for the other data roles.")
    return DataRoles(train=Subset(train, order[taken:].tolist()) if taken else train, **parts)


def check_roles(data: DataRoles) -> None:
    """Raise WorkloadError where a role is empty, where one that judges has a single sample, or where two roles share samples.

    Subsets of one dataset are compared by index; datasets whose tensors lie in memory by content. A dataset that computes its
    samples on access (decoding, random augmentation) is compared with the others only where it is a subset of the same one.
    """
    samples = {}
    for role in ROLES:
        with calling(f"The data role '{role}'"):
            if len(getattr(data, role)) == 0:
                raise WorkloadError(f"The data role '{role}' is empty.")
            if role in ("selection", "test") and len(getattr(data, role)) < 2:
                raise WorkloadError(
                    f"The data role '{role}' has one sample: a figure with an interval needs two, and a useful one hundreds."
                )
            samples[role] = _Samples.of(getattr(data, role))
    for left, right in combinations(ROLES, 2):
        if (left, right) in MAY_OVERLAP:
            continue
        shared = samples[left].shared_with(samples[right])
        if shared:
            raise WorkloadError(
                f"The data roles '{left}' and '{right}' share {shared} samples. A figure on '{right}' would not be honest; "
                "split them apart, or give fewer roles and let secateur.workloads.roles.split_roles do it."
            )


def check_calibration(data: DataRoles) -> None:
    """Raise WorkloadError where calibration data is of one class although train and search data are not.

    Statistics and gradients of one class would stand for all. Only where targets are class labels, integers (n,), and only
    where it cannot be chance: with rare classes, a fair draw may miss them.
    """
    labels = [_labels(role, _LOOKED_AT) for role in (data.calibration, data.train, data.search)]
    if any(each is None for each in labels):
        return
    calibration, *others = (cast("Tensor", each) for each in labels)
    only = int(calibration[0])
    elsewhere = torch.cat(others)
    share = (int((elsewhere == only).sum()) + 1) / (len(elsewhere) + 1)
    if bool((calibration == only).all()) and share ** len(calibration) < _CHANCE:
        raise WorkloadError(
            f"The data role 'calibration' holds one class only ({only}, in all of its {len(calibration)} samples looked at); in "
            f"train and search data {1 - share:.0%} are of others. Draw it from all of train, or leave it to "
            "secateur.workloads.roles.split_roles."
        )


def _labels(dataset: Dataset[Any], count: int) -> Tensor | None:
    """Class labels (n,) of drawn samples; None where targets are something else."""
    drawn_labels: list[Tensor] = []
    for _, targets in in_batches(drawn(dataset, count), 64):
        if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point():
            return None
        drawn_labels.append(targets)
    return torch.cat(drawn_labels)


@dataclass(frozen=True)
class _Samples:
    """The dataset under all subsets, the indices used of it, and content hashes where its tensors lie in memory."""

    base: Dataset[Any]
    indices: frozenset[int]
    hashes: frozenset[bytes] | None

    @classmethod
    def of(cls, dataset: Dataset[Any]) -> _Samples:
        base, indices = _unwrap(dataset)
        if not isinstance(base, TensorDataset):
            return cls(base, frozenset(indices), None)
        rows = base.tensors[0][torch.as_tensor(indices)].detach().cpu().contiguous().reshape(len(indices), -1)
        raw = rows.view(torch.uint8).numpy()  # bytes: numpy has no bfloat16
        hashes = frozenset(hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in raw)
        return cls(base, frozenset(indices), hashes)

    def shared_with(self, other: _Samples) -> int:
        if self.base is other.base:
            return len(self.indices & other.indices)
        if self.hashes is not None and other.hashes is not None:
            return len(self.hashes & other.hashes)
        return 0


def _unwrap(dataset: Dataset[Any]) -> tuple[Dataset[Any], list[int]]:
    if isinstance(dataset, Subset):
        base, inner = _unwrap(dataset.dataset)
        return base, [inner[i] for i in dataset.indices]
    if isinstance(dataset, Samples):
        return _unwrap(dataset.dataset)
    return dataset, list(range(len(dataset)))  # type: ignore[arg-type] # map-style datasets have a length


def drawn(dataset: Dataset[Any], count: int | None = None) -> Subset[Any]:
    """`count` samples (all of them where there are fewer, or by default), in the order of a permutation.

    The first samples of a dataset that is sorted (by class, by day) do not stand for it; these do. The permutation depends on the
    number of samples alone: it is the same in every process, and fewer samples are the first of more.
    """
    size = len(dataset)  # type: ignore[arg-type] # map-style datasets have a length
    return Subset(dataset, np.random.default_rng(_ORDER).permutation(size)[:count].tolist())


def collect(dataset: Dataset[Any], limit: int | None = None) -> tuple[PyTree, PyTree]:
    """Samples as one batch: inputs as the model is called with them, and targets; all tensors (n, …).

    limit: so many, `drawn`; by default the whole dataset as it is. What the collate function pads gets the length of the longest.
    """
    chosen = dataset if limit is None else drawn(dataset, limit)
    size = len(chosen)  # type: ignore[arg-type] # map-style datasets have a length
    inputs, targets = next(iter(in_batches(chosen, size)))
    return arguments(inputs), targets


def digest(dataset: Dataset[Any]) -> str:
    """Tells data sets apart: a hash of the number of samples and of a few of them. Random augmentation gives another each time."""
    inputs, targets = collect(dataset, 16)
    hashed = hashlib.sha256(str(len(dataset)).encode())  # type: ignore[arg-type] # map-style
    for tensor in tensors((inputs, targets)):
        hashed.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:16]
