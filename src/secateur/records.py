"""The value types, in the order in which data flows. All of them are frozen.

Workload → Group → Candidate → Removals → CompressedModel → Measurement → Evaluation → Recovered → Version.
Definitions (what a person writes) are in `secateur.definition`; the search space in `secateur.search_spaces`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

Direction = Literal["maximize", "minimize"]
Side = Literal["out", "in"]
Provenance = Literal["measured", "predicted", "computed", "emulated"]
Arm = Literal["dense", "uniform", "random", "global", "prior", "knapsack", "sampler"]

BASELINES: tuple[Arm, ...] = ("uniform", "random", "global")
"""Arms that a search has to beat: one fraction everywhere; draws without a model; one threshold on magnitude for all groups."""

SHARE = "share"
"""The unit of scores in [0, 1]: shown in per cent, their differences in points."""

ROLES = ("train", "calibration", "search", "selection", "test")


@dataclass(frozen=True)
class DataRoles:
    """The five data roles, never mixed. Every dataset is map-style and yields `(input or tuple of inputs, target)`.

    train: recovery learns from it. calibration: batch-norm recalibration and gradients. search: scores trials.
    selection: re-ranks the recovered front. test: touched once, on what is registered.
    """

    train: Dataset[Any]
    calibration: Dataset[Any]
    search: Dataset[Any]
    selection: Dataset[Any]
    test: Dataset[Any]


@dataclass(frozen=True)
class Workload:
    """A trained model with its data, made by the user's factory.

    build_model: returns the trained module in float32, the same weights at every call.
    example_inputs: a tuple of tensors with a leading batch dimension, as `model(*example_inputs)` takes them.
    loss: `(outputs, targets) → scalar tensor`, mean over the batch; also the loss of recovery.
    score: `(outputs, targets) → tensor (n,)` of per-sample scores (their mean is the accuracy) or a scalar; higher is better.
    score_unit: "share" for scores in [0, 1]; any other text is the unit of a plain number ("dB", or "" for none).
    augment: `(inputs, generator) → inputs`, applied to each training batch during recovery.
    """

    name: str
    build_model: Callable[[], nn.Module]
    example_inputs: tuple[Tensor, ...]
    data: DataRoles
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    score_name: str = "top-1 accuracy"
    score_unit: str = SHARE
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None


@dataclass(frozen=True)
class Member:
    """One side of one layer that a group cuts: removing root channel `roots[i]` removes index `indices[i]` there.

    A root channel may own several indices (a flattened feature map), or none (a padded shortcut).
    """

    module: str
    side: Side
    kind: str
    roots: tuple[int, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Coupled layers that lose the same channels: the unit of choice. Named after its root layer.

    width: output channels of the root layer. removable: the root channels that may go (a padded shortcut pins the rest).
    least: how many channels must stay, one at least.
    parameters: elements of all tensors that the group's channels touch. macs: multiply-accumulates of the member layers,
    for one sample.
    """

    name: str
    layer_type: str
    members: tuple[Member, ...]
    width: int
    removable: tuple[int, ...]
    parameters: int
    macs: int
    least: int = 1


@dataclass(frozen=True)
class Excluded:
    """A group that is not cut, and why."""

    name: str
    layer_type: str
    width: int
    reason: str


@dataclass(frozen=True)
class Cut:
    """What is done to one group: keep `kept` channels, ranked by `method`; `method` is None where nothing is removed."""

    method: str | None
    kept: int


@dataclass(frozen=True)
class Candidate:
    """A choice for every group of the search space."""

    cuts: Mapping[str, Cut]

    @property
    def key(self) -> str:
        """Hash of methods and resolved widths: equal cuts are one candidate."""
        listed = [[name, cut.method, cut.kept] for name, cut in sorted(self.cuts.items())]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Removals:
    """Which indices leave which side of which layer: replayable onto the original module, without tracing it again.

    out, in_: layer name → sorted indices into the *original* tensors. roots: group name → root channels removed.
    """

    out: Mapping[str, tuple[int, ...]]
    in_: Mapping[str, tuple[int, ...]]
    roots: Mapping[str, tuple[int, ...]]

    @property
    def key(self) -> str:
        """Hash of the channels that leave: two methods that agree give the same network."""
        listed = sorted((name, list(channels)) for name, channels in self.roots.items() if channels)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CompressedModel:
    """A cut network: the candidate it realises, the removals, the module (float32, evaluation mode)."""

    candidate: Candidate
    removals: Removals
    module: nn.Module


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

    limit: after recovery. limit_in_search: before it. text: for people. drop: of `max_drop`, the loss
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
    torch. attempts: how often it was begun; more than once where a worker died. waited: seconds, for a quiet device.
    """

    candidate: Candidate
    removals_key: str
    measurements: Mapping[str, Measurement]
    failure: str | None = None
    seconds: float = 0.0
    exported: bool = False
    stopped: str | None = None
    attempts: int = 1
    waited: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether it was looked at in full."""
        return self.failure is None and self.stopped is None


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    hurdles: values (objective → figure) of networks on the front; a candidate that cannot get past one of them may be given up.
    calibration_images, steps: of a higher fidelity; None and 0 are those of the search. probe: only the damage is wanted, on the
    calibration images, at a tenth of the cost of an evaluation. allowance: seconds that it may wait for a quiet device. export:
    folder of a trained finalist whose files are to be made there, and nothing else.
    """

    candidate: Candidate
    hurdles: tuple[Mapping[str, float], ...] = ()
    probe: bool = False
    calibration_images: int | None = None
    steps: int = 0
    allowance: float = 0.0
    export: str | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What one group costs when it alone is cut: a point of a sensitivity curve.

    damage: squared error of the outputs against the dense network's on calibration images, relative to their spread. macs,
    parameters: of the whole network with this one cut.
    """

    group: str
    method: str
    kept: int
    width: int
    damage: float
    macs: float
    parameters: float


@dataclass(frozen=True)
class Trial:
    """A trial whose evaluation has been recorded. same_as: the number of the trial whose evaluation it shares, None for its own.

    label: tells planned trials apart (`uniform 0.5 l2`), empty for the sampler's own; for people, and never read back. method,
    fraction: by which criterion a planned trial cuts, and how much: the removed fraction of `uniform`, the share of saliency of
    `global`; None where it was not planned so.
    """

    number: int
    arm: Arm
    label: str
    evaluation: Evaluation
    same_as: int | None
    method: str | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Recovered:
    """A finalist after fine-tuning, re-measured on data that the search never saw.

    trial: its number in the search. searched: its figures there (search data), before recovery. measurements: after recovery
    (selection data). on_search: its score on search data after recovery. test: its score on test data, only where it is
    registered. change, test_change: finalist's score minus the dense model's, sample by sample, on selection and on test data.
    missed: goals that it has not been shown to keep, with the figures. veto: why test data refuses it the alias.
    epochs, seconds, losses (mean of each epoch): of fine-tuning. folder: relative to the run's. stopped: why fine-tuning ended
    early, or None. failure: why it could not be measured, or None.
    """

    name: str
    trial: int
    candidate: Candidate
    searched: Mapping[str, Measurement]
    measurements: Mapping[str, Measurement]
    folder: str
    epochs: int
    seconds: float
    on_front: bool = False
    feasible: bool = False
    stopped: str | None = None
    failure: str | None = None
    test: Measurement | None = None
    on_search: Measurement | None = None
    change: Measurement | None = None
    test_change: Measurement | None = None
    missed: tuple[str, ...] = ()
    veto: str | None = None
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Rung:
    """A look at fewer candidates with more effort. scores: trial number → score there; passed: the numbers that went on.

    kendall: rank correlation (tau-b) of search score and score there with its 95 % interval, None where they are too few.
    """

    name: str
    scores: Mapping[int, float]
    passed: tuple[int, ...]
    kendall: Measurement | None = None


SEARCH = "search"
"""The arm of everything that is neither a baseline nor the dense network."""


LEAST_COMPARED = 5
"""Networks of a baseline below which a comparison with the search is only a sanity check."""


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


@dataclass(frozen=True)
class Version:
    """A registered model version. sha256: of its ONNX file."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    sha256: str
    finalist: str


@dataclass(frozen=True)
class GroupSummary:
    """A group as the report shows it. widths: channel counts that the search could choose among; multiple: of which they are."""

    name: str
    layer_type: str
    width: int
    parameters: int
    macs: int
    methods: tuple[str, ...]
    widths: tuple[int, ...]
    multiple: int = 1


@dataclass(frozen=True)
class RunRecord:
    """Everything a run found out: what report, registry and `secateur show` read.

    definition: as written, defaults filled in. environment: versions, commit, machine. device: fingerprint. dense: the original
    network's figures per data role (`search`, `selection`, `test`). goals: as limits on selection data. knee: name of the finalist
    that gets the alias. seconds: per stage, and per part of one (`recover.training`). arms: the search's own (`search`) and each
    baseline. ended: why the search did.
    small_dense: the baseline trained from scratch. exports: candidates whose file had to be exported instead of rewritten.
    prediction: None where every candidate was measured. infeasible: numbers of trials, evaluated in full, outside the search's
    limits. searched_front: numbers of the feasible trials that none dominates. self_comparison: latency of the dense model against
    itself; where its interval misses 1, every latency interval here is wider by what it lacks. waited: seconds that measurements
    waited for the device to become quiet. device_step: channels that the device computes at a time, None where it was not measured.
    """

    run_id: str
    name: str
    workload: str
    score_name: str
    started: str
    definition: Mapping[str, Any]
    environment: Mapping[str, str]
    device: str
    objectives: Mapping[str, Direction]
    goals: tuple[Goal, ...]
    groups: tuple[GroupSummary, ...]
    excluded: tuple[Excluded, ...]
    dense: Mapping[str, Mapping[str, Measurement]]
    samples: Mapping[str, int]
    trials: tuple[Trial, ...]
    sensitivities: tuple[Sensitivity, ...]
    finalists: tuple[Recovered, ...]
    knee: str | None
    seconds: Mapping[str, float]
    audit: Audit
    arms: tuple[ArmResult, ...]
    ended: str
    small_dense: Recovered | None = None
    rungs: tuple[Rung, ...] = ()
    exports: int = 0
    prediction: PredictionAudit | None = None
    infeasible: tuple[int, ...] = ()
    searched_front: tuple[int, ...] = ()
    score_unit: str = SHARE
    self_comparison: Measurement | None = None
    waited: float = 0.0
    device_step: int | None = None

    @property
    def unbeaten(self) -> list[ArmResult]:
        """Baselines that the search has not beaten.

        At equal numbers of networks: as many of its own have no more hypervolume than the baseline in half of the draws. A baseline
        of too few networks for that must have reached what the whole search has.
        """
        whole = next(a.hypervolume for a in self.arms if a.arm == SEARCH)
        to_beat = {a.arm: a.at_equal.value if a.comparable and a.at_equal else whole for a in self.arms}
        return [a for a in self.arms if a.arm != SEARCH and a.networks and a.hypervolume >= to_beat[a.arm]]

    @property
    def registered(self) -> list[Recovered]:
        """The finalists that passed the gate: feasible, and on the front of the recovered ones."""
        return [f for f in self.finalists if f.feasible and f.on_front]
