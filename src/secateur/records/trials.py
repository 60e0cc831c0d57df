"""What a search records, and whether it could be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from secateur.records.evaluations import Evaluation, Measurement
from secateur.records.plans import Edit

Arm = Literal["dense", "uniform", "random", "global", "prior", "knapsack", "sampler"]


BASELINES: tuple[Arm, ...] = ("uniform", "random", "global")
"""Arms that a search has to beat: one fraction everywhere; draws without a model; one threshold on magnitude for all groups."""


SEARCH = "search"
"""The arm of everything that is neither a baseline nor the dense network."""


LEAST_COMPARED = 5
"""Networks of a baseline below which a comparison with the search is only a sanity check."""


@dataclass(frozen=True)
class Sensitivity:
    """What one group costs when it alone is edited: a point of a sensitivity curve.

    removed: the share of the group that leaves. damage: squared error of the outputs against the dense network's on calibration
    images, relative to their spread. macs, parameters, nonzero (parameters that are not masked): of the whole network with this one
    edit.
    """

    group: str
    edit: Edit
    removed: float
    damage: float
    macs: float
    parameters: float
    nonzero: float


@dataclass(frozen=True)
class Trial:
    """A trial whose evaluation has been recorded. same_as: the number of the trial whose evaluation it shares, None for its own.

    label: tells planned trials apart (`uniform 0.5 l2`), empty for the sampler's own; for people, and never read back. method,
    fraction: by which criterion a planned trial cuts, and how much: the removed fraction of `uniform`, of `global` the share of all
    that can go; None where it was not planned so.
    """

    number: int
    arm: Arm
    label: str
    evaluation: Evaluation
    same_as: int | None
    method: str | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Rung:
    """A look at fewer candidates with more effort. scores: trial number → score there; passed: the numbers that went on.

    kendall: rank correlation (tau-b) of search score and score there with its 95 % interval, None where they are too few.
    """

    name: str
    scores: Mapping[int, float]
    passed: tuple[int, ...]
    kendall: Measurement | None = None


@dataclass(frozen=True)
class ArmResult:
    """What one arm of the search has reached: networks evaluated in full, and the hypervolume of its feasible ones.

    at_equal: of a baseline, the hypervolume of as many networks drawn from the search's own: the median of `samples` draws and the
    interval that holds 95 % of them; None where the search has no more networks than the baseline.
    """

    arm: str
    networks: int
    hypervolume: float
    at_equal: Measurement | None = None

    @property
    def comparable(self) -> bool:
        """Whether it has enough networks for more than a sanity check."""
        return self.at_equal is not None and self.networks >= LEAST_COMPARED


@dataclass(frozen=True)
class Audit:
    """Whether the search could be believed.

    kendall: rank correlation (tau-b) of search score and fine-tuned score over `pairs` finalists, with its 95 % interval; None
    below eight pairs, or without an order. Finalists are the best of the search: over all networks it would be higher.
    regret: how much the finalist that the search liked best stays behind the best one, after fine-tuning. search_to_selection,
    selection_to_test: mean change of the tuned finalists' score from one data role to the next.
    """

    pairs: int
    kendall: float | None
    regret: float | None
    search_to_selection: float | None
    selection_to_test: float | None
    kendall_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class PredictionAudit:
    """Whether the latency predictor could be believed, from networks that it foresaw and the device then measured.

    pairs: how many; what it was calibrated on is not among them. mean_error: relative. within_tenth: share of errors up to 10 %.
    covered: share whose measured value lies in the predicted interval. kendall: None below eight pairs, or without an order.
    screened: networks that it kept from being measured; only those that it let through are among the pairs.
    """

    pairs: int
    mean_error: float | None
    within_tenth: float | None
    covered: float | None
    kendall: float | None
    screened: int
    kendall_interval: tuple[float, float] | None = None
