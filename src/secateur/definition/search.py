"""The block `search`, without `nni`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from secateur.definition.declared import Declared, Fraction, Name
from secateur.definition.nni import NniDefinition


class BaselinesDefinition(Declared):
    """Baselines beside those that always run (dense, uniform, random, global magnitude)."""

    small_dense: bool = Field(
        False,
        description="Also train a small network from scratch: the widths of the knee, new weights, as long as a finalist is tuned.",
    )


class LimitsDefinition(Declared):
    """What one candidate may use before it counts as failed."""

    seconds: float = Field(
        600.0,
        gt=0.0,
        le=1e6,
        description="Wall time of one evaluation; then its worker is ended. A rung's training has no limit.",
    )
    memory_gb: float | None = Field(
        None, gt=0.0, le=1e6, description="Private memory of a worker, in GB (Linux). Default: no limit."
    )


class FidelitiesDefinition(Declared):
    """Evaluate cheaply first; drop candidates that cannot reach the front.

    Source: Jamieson & Talwalkar 2016 (successive halving), arXiv:1502.07943.
    """

    first_images: Fraction = Field(
        0.25,
        description="Share of the search data after which a candidate that cannot reach the front (99 % confidence) is given up; "
        "0 scores every candidate on all of it.",
    )
    keep: int = Field(
        2, ge=2, description="After the search: one in this many goes on to the next rung, by non-dominated rank."
    )
    calibration_images: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="First rung after the search: recalibration on this many samples. Default: this rung is left out.",
    )
    training: tuple[Fraction, ...] = Field(
        (0.01, 0.03),
        max_length=8,
        description="Where finalists are fine-tuned, the last rungs before it: each trains its candidates for this share of a "
        "finalist's training, at least one step. [] leaves them out, and so does `recover.minutes`.",
    )


class SearchDefinition(Declared):
    """How the space is searched, and when the search ends."""

    engine: Literal["optuna", "nni"] = Field(
        "optuna",
        description="What runs the search: Optuna, or an NNI experiment (extra `nni`), mirrored into the Optuna study.",
    )
    sampler: str = Field("tpe", description="See `secateur list samplers`.")
    trials: int = Field(
        60,
        ge=1,
        le=1_000_000,
        description="Candidates that are evaluated, baselines included; repeats, what a cheap constraint rejects and the "
        "probes of the sensitivity sweep are not counted.",
    )
    minutes: float | None = Field(
        None, gt=0.0, le=1e6, description="Minutes after which the search ends, restarts included."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="The search ends when this many candidates in a row have added no hypervolume.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the sampler.")
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that evaluate candidates side by side, and then train finalists side by side.",
    )
    warm_start: Name | None = Field(
        None, description="Id of an earlier run of this project: the front it found is evaluated first."
    )
    baselines: BaselinesDefinition = Field(default_factory=lambda: BaselinesDefinition())
    limits: LimitsDefinition = Field(default_factory=lambda: LimitsDefinition())
    fidelities: FidelitiesDefinition = Field(default_factory=lambda: FidelitiesDefinition())
    nni: NniDefinition | None = Field(None, description="Settings of the NNI experiment; only with `engine: nni`.")

    @model_validator(mode="after")
    def _nni_is_used(self) -> SearchDefinition:
        if self.nni is not None and self.engine != "nni":
            raise ValueError("'nni' is only for NNI's experiments: add 'engine: nni', or leave it out")
        if self.nni is not None and self.nni.assessor is not None and self.fidelities.first_images == 0:
            raise ValueError("an assessor judges by a first part of the data: set fidelities.first_images above 0")
        return self
