"""The block `evaluator`, without its `device`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from secateur.definition.declared import Declared
from secateur.definition.devices import DeviceDefinition, LocalDevice

LOWER_GOALS = ("max_drop", "at_least")
"""Goals for a metric that is maximised."""
UPPER_GOALS = ("at_most", "speedup_at_least", "smaller_by", "max_rise")
"""Goals for a metric that is minimised."""


class ConstraintDefinition(Declared):
    """What a model must hold to be registered. At least one goal; several may stand together."""

    max_drop: float | None = Field(
        None,
        ge=0.0,
        description="Largest loss against the dense model after recovery, on selection data, as shown by its 95 % bound.",
    )
    max_rise: float | None = Field(
        None,
        ge=0.0,
        description="The same for a score that is minimised: by how much it may be higher than the dense model's.",
    )
    at_least: float | None = Field(None, description="Lowest value, in the metric's own unit; for what is maximised.")
    at_most: float | None = Field(
        None,
        description="Highest value, in the metric's own unit (latency: of the dense model's); for what is minimised.",
    )
    speedup_at_least: float | None = Field(
        None,
        gt=0.0,
        description="The dense model's value over this one's is at least that: 2 means at most half of it.",
    )
    smaller_by: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the dense model's value that must go: 0.4 leaves at most 60 %."
    )
    before_recovery: float | None = Field(
        None,
        ge=0.0,
        description="Largest loss during the search. Default: the loss that is allowed in the end where there is no recovery; with "
        "recovery eight times that, since fine-tuning brings most of it back.",
    )

    @property
    def goals(self) -> dict[str, float]:
        """The goals that are set, by name."""
        values = {name: getattr(self, name) for name in (*UPPER_GOALS, *LOWER_GOALS)}
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _says_something(self) -> ConstraintDefinition:
        if not self.goals:
            raise ValueError(f"a constraint needs a goal: one of {', '.join((*LOWER_GOALS, *UPPER_GOALS))}")
        return self


class PredictorDefinition(Declared):
    """A latency predictor, fitted on the device before the search. What it predicts never enters a front."""

    models: int = Field(12, ge=6, le=10_000, description="Networks that are measured to calibrate it.")


class EvaluatorDefinition(Declared):
    """What is measured, where and how."""

    objectives: dict[str, Literal["maximize", "minimize"]] = Field(
        min_length=1, description="Metric → direction; see `secateur list metrics`."
    )
    constraints: dict[str, ConstraintDefinition] = Field(default={}, description="Metric → what must hold.")
    metrics: dict[str, str] = Field(
        default={}, description="The project's own metrics: name → `module:function` or `file.py:function`."
    )
    runtime: str = Field("onnxruntime", description="What runs the exported model; see `secateur list runtimes`.")
    runtime_options: dict[str, str] = Field(
        default={}, description="The runtime's own options, e.g. `{provider: cuda}`; see `secateur list runtimes`."
    )
    device: DeviceDefinition = Field(
        default_factory=lambda: LocalDevice(),
        description="Where it is measured: `local` (this host), or a block with `kind: ssh` or `kind: adb`.",
    )
    threads: int = Field(1, ge=1, le=256, description="Threads of the runtime, for accuracy and latency alike.")
    batch: int = Field(
        1, ge=1, le=65_536, description="Samples per run of the exported model, for accuracy and latency alike."
    )
    calibration_images: int = Field(
        64,
        ge=0,
        le=1_000_000,
        description="Calibration samples for batch-norm recalibration of every candidate; 0 turns it off.",
    )
    refit_images: int = Field(
        256,
        ge=0,
        le=1_000_000,
        description="Calibration samples on which layers that read cut channels, or hold zeros, are refitted by least squares, in "
        "every candidate; 0 turns it off.",
    )
    deadline: float = Field(
        300.0, gt=0.0, le=1e6, description="Seconds that the device gives one measurement; then it counts as failed."
    )
    waiting: float = Field(
        0.25,
        ge=0.0,
        le=1.0,
        description="Seconds that may be spent on waiting for a quiet device, as a share of those that the run takes without it.",
    )
    device_samples: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Samples that the device itself scores (metric `device_accuracy`): of search data in the search, of selection "
        "data for finalists; 0 for none.",
    )
    energy_command: str | None = Field(
        None,
        description="Command on the device that prints the joules spent so far. Default: RAPL, where it is readable.",
    )
    predictor: PredictorDefinition | None = Field(
        None,
        description="For slow devices: measure some networks there, predict the latency of the others, and measure only "
        "candidates that may still reach the front. Default: every candidate is measured.",
    )
