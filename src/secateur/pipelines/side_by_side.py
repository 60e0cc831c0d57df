"""Finalists that are trained at the same time, each in a worker process of the search.

How many at a time follows from the memory that is left. How many threads each has does not: sums, and so the weights, depend on it
in their last bits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from secateur.execution import Pool, Trained
from secateur.execution.protocol import OnEpoch
from secateur.memory import left
from secateur.pipelines.preparation import Prepared
from secateur.records import Recovered, TrainingJob
from secateur.recovery.footprint import training_bytes


@dataclass(frozen=True)
class Training:
    """A finalist that is to be trained, and who is told of its epochs. finalist: without figures."""

    finalist: Recovered
    on_epoch: OnEpoch


def trained(
    pool: Pool, trainings: Sequence[Training], at_once: int, threads: int
) -> Iterator[tuple[Recovered, str | None]]:
    """Finalists, each when its training is over, with what it failed of. The network lies in the finalist's folder.

    One whose worker dies, as where memory runs out, is trained once more when the others are done, with nothing beside it. threads:
    of each. Raises what `Pool.trained` raises.
    """
    waiting, alone = deque(range(len(trainings))), deque[int]()
    under_way, died = set[int](), dict[int, str]()

    def begin(number: int) -> None:
        under_way.add(number)
        pool.submit(number, TrainingJob(trainings[number].finalist, threads), trainings[number].on_epoch)

    while waiting or alone or under_way:
        while waiting and len(under_way) < at_once:
            begin(waiting.popleft())
        if not under_way:
            begin(alone.popleft())
        number, ended = pool.trained()
        under_way.remove(number)
        if ended.died and number not in died:
            died[number] = ended.failure or ""
            alone.append(number)
            continue
        yield trainings[number].finalist, _reason(ended, died.get(number))


def _reason(ended: Trained, first: str | None) -> str | None:
    if not ended.died:
        return ended.failure
    return (
        f"the process that trained it died, {first}; then again, with nothing beside it, {ended.failure}. Signal 9 comes from the "
        "system where memory runs out: lower 'batch' in 'recover' then."
    )


def at_once(prepared: Prepared, wanted: int) -> int:
    """How many of so many trainings memory has room for; one at least. A warning says where it has no room for all."""
    settings, workload = prepared.definition.recover, prepared.workload
    assert settings is not None  # noqa: S101 # something is to be trained
    samples = len(workload.data.train)  # type: ignore[arg-type] # map-style
    each, free = training_bytes(prepared.model, workload.example_inputs, settings, samples), left()
    fitting = wanted if free is None else max(1, min(wanted, free // each))
    if fitting < wanted:
        logging.getLogger("secateur").warning(
            "Finalists are trained %d at a time in place of %d: one takes about %.1f GB, and %.1f GB are free.",
            fitting,
            wanted,
            each / 1e9,
            (free or 0) / 1e9,
        )
    return fitting


def threads_of(trainings: int) -> int:
    """Torch's threads for each of several trainings: its share of those that one alone would have."""
    return max(1, torch.get_num_threads() // trainings)
