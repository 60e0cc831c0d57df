"""What a criterion says, whatever it ranks, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from secateur.errors import NotFinite, WorkloadError
from secateur.workloads.calls import calling


class Seen(Protocol):
    """What a criterion sees: of something with a name."""

    @property
    def name(self) -> str:
        """Of a group, a layer or a block."""
        ...


S = TypeVar("S", bound=Seen)


def scores_of(method: str, score: Callable[[S], Tensor], seen: S, shape: tuple[int, ...], each: str) -> Tensor:
    """A criterion's scores, float32. shape: one for `each` (channel, weight, sample).

    Raises WorkloadError where they have another shape or are negative, since thresholds over groups need scores from 0 on, and
    NotFinite where they are not finite, since NaN would be sorted.
    """
    criterion = f"The criterion '{method}'"
    with calling(f"{criterion} on '{seen.name}'"):
        scores = score(seen)
    if not isinstance(scores, Tensor) or scores.shape != shape:
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise WorkloadError(
            f"{criterion} gives {given} for '{seen.name}'; a tensor {shape} is needed, one score per {each}."
        )
    wrong = (~torch.isfinite(scores) | (scores < 0)).nonzero()
    if len(wrong):
        place = tuple(wrong[0].tolist())
        value = float(scores[place])
        raise (WorkloadError if math.isfinite(value) else NotFinite)(
            f"{criterion} gives {value:g} for {each} {', '.join(map(str, place))} of '{seen.name}'; scores must be finite and not "
            "negative. Where it reads gradients, look at the loss; else leave it out of 'methods'."
        )
    return scores.float()
