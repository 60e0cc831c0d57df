"""What is measured of a network, and the limits it must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from secateur.records.plans import Candidate, Plan

N = TypeVar("N")
Direction = Literal["maximize", "minimize"]
SCORE = "accuracy"
"""The metric that is the workload's score."""


def gain(value: N, direction: Direction) -> N:
    """A figure, or a difference of figures, as one of which more is better."""
    return value if direction == "maximize" else -value  # type: ignore[operator] # numbers, arrays and tensors


Provenance = Literal["measured", "predicted", "computed", "emulated"]


@dataclass(frozen=True)
class Measurement:
    """A figure that says where it comes from.

    interval: 95 %, in `unit`; None where the figure is exact. samples: how many observations it rests on. device: the
    fingerprint of what it was measured on, None for computed figures. details: further figures, each with its unit in its
    name (`p50_ms`).
    """

    value: float
    unit: str
    provenance: Provenance
    samples: int = 1
    interval: tuple[float, float] | None = None
    device: str | None = None
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, or the value twice where it is exact."""
        return self.interval or (self.value, self.value)


@dataclass(frozen=True)
class Goal:
    """What a model must hold in one metric, as an absolute limit in the metric's unit.

    limit: after recovery. limit_in_search: before it. text: for people. drop: of `max_drop` and `max_rise`, the loss
    against the dense model that is allowed.
    """

    metric: str
    sense: Literal["at_least", "at_most"]
    limit: float
    limit_in_search: float
    text: str
    drop: float | None = None

    def violation(self, value: float, *, in_search: bool) -> float:
        """How far a value lies on the wrong side, as a share of the limit; ≤ 0 holds."""
        limit = self.limit_in_search if in_search else self.limit
        gap = limit - value if self.sense == "at_least" else value - limit
        return gap / (abs(limit) or 1.0)


@dataclass(frozen=True)
class Evaluation:
    """What was found out about one candidate. Either `failure` and `stopped` are None or `measurements` may be incomplete.

    failure: what went wrong. stopped: why it was not looked at in full although nothing went wrong (a budget that it cannot
    keep, a front that it cannot reach). exported: its file had to be exported, because the rewritten one did not agree with
    torch. attempts: how often it was begun; more than once where a worker died. waited: seconds, for a quiet device. rejected:
    whether it was stopped before anything was evaluated, by what is known or foreseen of its costs.
    """

    candidate: Candidate
    plan_key: str
    measurements: Mapping[str, Measurement]
    failure: str | None = None
    seconds: float = 0.0
    exported: bool = False
    stopped: str | None = None
    attempts: int = 1
    waited: float = 0.0
    rejected: bool = False

    @property
    def complete(self) -> bool:
        """Whether it was looked at in full."""
        return self.failure is None and self.stopped is None


@dataclass(frozen=True)
class Fidelity:
    """How closely a candidate is evaluated; the defaults are those of the search.

    calibration: samples on which it is recalibrated, None for the definition's number. steps: of training before it is measured.
    probe: only the damage is measured, on the calibration samples, at a tenth of the cost of an evaluation.
    """

    calibration: int | None = None
    steps: int = 0
    probe: bool = False

    @property
    def again(self) -> bool:
        """Whether a candidate of the search is looked at once more, with more effort."""
        return self.calibration is not None or self.steps > 0


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do: the plan is carried out; the candidate is named in the evaluation.

    hurdles: values (objective → figure) of networks on the front; a candidate that cannot get past one of them may be given up.
    allowance: seconds that it may wait for a quiet device.
    """

    candidate: Candidate
    plan: Plan
    hurdles: tuple[Mapping[str, float], ...] = ()
    fidelity: Fidelity = Fidelity()
    allowance: float = 0.0
