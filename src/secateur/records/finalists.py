"""What becomes of the networks that a search has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secateur.records.evaluations import Measurement
from secateur.records.plans import Candidate


@dataclass(frozen=True)
class Quantized:
    """What a network in int8 was made of.

    of: name of its float32 twin, `dense` for the original. folder: the twin's, relative to the run's. deviation: squared error of
    its outputs against the twin's on selection data, relative to the spread of the latter; None where it could not be measured.
    """

    of: str
    folder: str
    deviation: Measurement | None = None


@dataclass(frozen=True)
class GatePath:
    """A path through a network with gates. closed: blocks that are passed by. macs: of a sample that takes it.

    latency: of a run in which every sample takes it, as a ratio to the dense model's; None where latency is not measured.
    """

    closed: tuple[str, ...]
    macs: int
    latency: Measurement | None = None


@dataclass(frozen=True)
class Recovered:
    """A finalist after fine-tuning, re-measured on data that the search never saw.

    trial: its number in the search, None for the original. searched: its figures there (search data), before recovery; none for an
    int8 twin. measurements: after recovery (selection data). on_search: its score on search data after recovery. epochs, seconds,
    losses (mean of each epoch): of fine-tuning. curve: its loss, as (step of the optimizer, mean over the steps since the point
    before); scores: (step, score on search data after an epoch); both empty in records of earlier versions. folder: relative to the
    run's. stopped: why fine-tuning ended early, or None.
    failure: why it could not be measured or compared, or None. patterns: N:M → (layers of its file that have it as sparse tensor
    cores read it, layers that were to have it); the others have too few input channels, or a number of them that is no multiple of
    M, or several groups. quantized: None for one in float32. paths: of a network with gates: all of them open, each closed alone,
    all closed; its measurements are averages over samples.
    """

    name: str
    trial: int | None
    candidate: Candidate
    searched: Mapping[str, Measurement]
    measurements: Mapping[str, Measurement]
    folder: str
    epochs: int
    seconds: float
    stopped: str | None = None
    failure: str | None = None
    on_search: Measurement | None = None
    losses: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    scores: tuple[tuple[int, float], ...] = ()
    patterns: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    quantized: Quantized | None = None
    paths: tuple[GatePath, ...] = ()

    @property
    def steps(self) -> int:
        """Of the optimizer, as far as the curve goes; 0 without one."""
        return max((step for step, _ in (*self.curve, *self.scores)), default=0)

    @property
    def precision(self) -> str:
        """Of its numbers: `float32` or `int8`."""
        return "float32" if self.quantized is None else "int8"

    @property
    def compressed(self) -> str:
        """The folder of its torch module, relative to the run's. Torch runs no int8 file: there it is the float32 twin's."""
        return f"{(self.quantized or self).folder}/compressed"


@dataclass(frozen=True)
class TrainingJob:
    """What a worker is asked to do with a finalist: train it, into its folder. finalist: without figures. threads: of torch."""

    finalist: Recovered
    threads: int


@dataclass(frozen=True)
class Check:
    """A goal on selection data. missed: why a finalist has not been shown to keep it, with the figures; None where it has."""

    goal: str
    missed: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a finalist that could be measured, beside the dense model.

    finalist: its name. on_front: whether neither the dense model nor another finalist dominates it. change, test_change: its score
    minus the dense model's, sample by sample, on selection and on test data; the former is None in records of earlier versions.
    test: its score on test data, only where it is registered. veto: why test data refuses it the alias.
    """

    finalist: str
    on_front: bool
    checks: tuple[Check, ...]
    change: Measurement | None
    test: Measurement | None = None
    test_change: Measurement | None = None
    veto: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether it has been shown to keep every goal."""
        return all(check.missed is None for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether it is registered."""
        return self.feasible and self.on_front


@dataclass(frozen=True)
class GateCheck:
    """One thing in which a finalist was compared with the version that serves.

    figure: finalist against version, in the unit that it says. demand: what it had to keep. threshold: the same as a number.
    """

    name: str
    figure: Measurement
    demand: str
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Comparison:
    """What the gate says of the best finalist beside the version that serves, both measured in one run.

    alias, version: whom it was compared with; version is None where nobody had the alias, and the finalist passes. failure: why
    they could not be compared; then it does not.
    """

    finalist: str
    alias: str
    version: str | None
    checks: tuple[GateCheck, ...] = ()
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the finalist may take the version's place."""
        return self.failure is None and all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Version:
    """A registered model version. sha256: of its ONNX file."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    sha256: str
    finalist: str
