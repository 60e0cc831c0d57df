"""A finished run, as report, registry and terminal read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.records.evaluations import Direction, Goal, Measurement
from secateur.records.finalists import Comparison, Recovered, Verdict
from secateur.records.groups import Excluded
from secateur.records.plans import Candidate
from secateur.records.trials import SEARCH, ArmResult, Audit, PredictionAudit, Rung, Sensitivity, Trial
from secateur.records.workload import SHARE


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
class Refitted:
    """The layers that read channels which may be cut. images: calibration samples of least squares, 0 where nothing is refitted.

    layers: how many are refitted. reasons: name of each that is not → why.
    """

    images: int
    layers: int
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        if not self.images:
            return "not refitted: refit_images is 0"
        every = self.layers + len(self.reasons)
        text = f"{self.layers} of {every} refitted by least squares on up to {self.images:,} calibration samples"
        return "; ".join([text, *(f"not '{name}': {reason}" for name, reason in self.reasons.items())])


@dataclass(frozen=True)
class Precedent:
    """The choice that a retraining tries first, and what the search that found it knew.

    of: what serves, for people. run, finalist: where the choice comes from. searched_in: the run whose search found it. front,
    profile: of that search. seconds: that search's and its finalists' (`search`, `recover`, `gate`).
    """

    of: str
    run: str
    finalist: str
    candidate: Candidate
    searched_in: str
    front: tuple[Candidate, ...]
    profile: tuple[Sensitivity, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Replay:
    """What became of a precedent on new weights.

    moved: how far the sensitivity profile is from the precedent's, None where the two could not be compared. threshold: beyond
    which the choice is not tried. refused: why it was searched anew, None where the choice stands.
    """

    precedent: Precedent
    moved: float | None
    threshold: float
    refused: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything a run found out: what report, registry and `secateur show` read.

    definition: as written, defaults filled in. environment: versions, commit, machine. device: fingerprint. dense: the original
    network's figures per data role (`search`, `selection`, `test`). goals: as limits on selection data. verdicts: by the finalist's
    name, of each that could be measured. knee: name of the finalist that gets the alias. seconds: per stage, and per part of one
    (`recover.training`). arms: the search's own (`search`) and each baseline. ended: why the search did.
    small_dense: the baseline trained from scratch. exports: candidates whose file had to be exported instead of rewritten.
    prediction: None where every candidate was measured. infeasible: numbers of trials, evaluated in full, outside the search's
    limits. searched_front: numbers of the feasible trials that none dominates. self_comparison: latency of the dense model against
    itself; where its interval misses 1, every latency interval here is wider by what it lacks. waited: seconds that measurements
    waited for the device to become quiet. device_step: channels that the device computes at a time, None where it was not measured.
    refitted: None in runs of earlier versions. comparison: of the knee with the version that serves, None where no gate asks for
    it or there is no knee. uncut: the score on search data of what sparse training has made of the
    original, None where candidates are cut from the original itself. replay: where an earlier choice was tried first.
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
    verdicts: Mapping[str, Verdict]
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
    score_direction: Direction = "maximize"
    self_comparison: Measurement | None = None
    waited: float = 0.0
    device_step: int | None = None
    refitted: Refitted | None = None
    uncut: Measurement | None = None
    comparison: Comparison | None = None
    replay: Replay | None = None

    @property
    def unbeaten(self) -> list[ArmResult]:
        """Baselines that the search has not beaten.

        At equal numbers of networks: as many of its own have no more hypervolume than the baseline in half of the draws. A baseline
        of too few networks for that must have reached what the whole search has.
        """
        whole = next(a.hypervolume for a in self.arms if a.arm == SEARCH)
        to_beat = {a.arm: a.at_equal.value if a.comparable and a.at_equal else whole for a in self.arms}
        return [a for a in self.arms if a.arm != SEARCH and a.networks and a.hypervolume >= to_beat[a.arm]]

    def twin_latency(self, finalist: Recovered) -> Measurement | None:
        """Of the float32 network that an int8 one was made of; None for one in float32, and where it was not measured."""
        if finalist.quantized is None:
            return None
        measured = {f.name: f.measurements for f in self.finalists}
        return measured.get(finalist.quantized.of, self.dense["selection"]).get("latency")

    @property
    def registered(self) -> list[Recovered]:
        """The finalists that passed the gate: feasible, and on the front of the recovered ones."""
        return [f for f in self.finalists if f.name in self.verdicts and self.verdicts[f.name].passed]
