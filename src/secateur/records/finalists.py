"""What becomes of the networks that a search has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.records.evaluations import Measurement
from secateur.records.plans import Candidate


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
class Version:
    """A registered model version. sha256: of its ONNX file."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    sha256: str
    finalist: str
