"""What a network scores sample by sample: two networks on the same samples can then be compared pair by pair."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.errors import WorkloadError
from secateur.files import write
from secateur.records import Direction, Workload
from secateur.workloads.pytrees import PyTree, length, rows

RESAMPLES = 200
"""Bootstrap draws for a score that is one number for all samples: its standard error is then known to 5 %."""
SEARCH_RESAMPLES = 25
"""The same for a candidate of the search, whose interval only the front reads: known to 14 %, and the interval is wider for it."""


@dataclass(frozen=True)
class Scores:
    """One network's scores on one data role.

    samples: how many there are, n. values: (n,) float64, one score a sample, whose mean is the score; or (1 + resamples,) where the
    workload gives one number for all: that number, then those of the bootstrap draws, which are the same for every network.
    direction: which way the score is better.
    """

    samples: int
    per_sample: bool
    values: NDArray[np.float64]
    direction: Direction = "maximize"

    @property
    def current(self) -> bool:
        """Whether these can be compared with scores taken now: earlier versions drew another number of resamples."""
        return self.per_sample or len(self.values) == 1 + RESAMPLES

    @property
    def value(self) -> float:
        """The score."""
        return float(self.values.mean() if self.per_sample else self.values[0])


def scores_of(workload: Workload, outputs: PyTree, targets: PyTree, resamples: int = RESAMPLES) -> Scores:
    """Score a network's outputs against targets, all tensors (n, …). resamples: of a score that is one number for all samples."""
    scores = torch.as_tensor(workload.score(outputs, targets)).double()
    count = length(targets)
    if scores.dim() == 1:
        return Scores(count, True, scores.numpy(), workload.score_direction)
    rng = np.random.default_rng(count)  # seeded by nothing but n: the same draws for every network
    drawn = (torch.from_numpy(rng.integers(0, count, count)) for _ in range(resamples))
    resampled = [score_of_all(workload, rows(outputs, i), rows(targets, i)) for i in drawn]
    return Scores(count, False, np.array([float(scores), *resampled]), workload.score_direction)


def score_of_all(workload: Workload, outputs: PyTree, targets: PyTree) -> float:
    """A score that is one number for all samples; NaN where it has none for these (an area under a curve, of one class)."""
    try:
        return float(workload.score(outputs, targets))
    except WorkloadError:
        return math.nan


def save_scores(scores: Scores, file: Path) -> None:
    """Keep them as .npz. Raises StateError where the disk does not take it."""
    buffer = io.BytesIO()
    np.savez(
        buffer, samples=scores.samples, per_sample=scores.per_sample, values=scores.values, direction=scores.direction
    )
    write(file, buffer.getvalue())


def load_scores(file: Path) -> Scores:
    """Scores that `save_scores` has kept."""
    with np.load(file, allow_pickle=False) as kept:
        direction: Any = str(kept["direction"]) if "direction" in kept else "maximize"  # earlier versions knew no other
        return Scores(int(kept["samples"]), bool(kept["per_sample"]), kept["values"], direction)
