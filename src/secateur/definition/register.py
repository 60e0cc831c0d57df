"""The block `register`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from secateur.definition.declared import Declared, Name
from secateur.redaction import has_credentials


class GateDefinition(Declared):
    """What the best finalist must keep beside the version that serves, before it gets an alias."""

    against: Name = Field(
        "champion", description="Alias of the version that serves. Nobody has it: the finalist passes."
    )
    margin: float = Field(
        0.01,
        ge=0.0,
        description="Loss of score that must be excluded with 95 % confidence, sample by sample, in the score's unit (a share: "
        "0.01 is one point).",
    )
    slice_margin: float = Field(
        0.05,
        ge=0.0,
        description="Loss of score in any of the workload's slices that must not be shown (95 % interval), in the score's unit.",
    )
    slack: float = Field(
        0.02, ge=0.0, le=10.0, description="Share by which latency and size may be above the version's, beyond noise."
    )


class RegisterDefinition(Declared):
    """Where the survivors go."""

    name: Name = Field(description="Name of the registered model in MLflow.")
    alias: Name = Field("candidate", description="Alias of the version at the knee of the front.")
    gate: GateDefinition | None = Field(
        None,
        description="Compare the knee with the version that serves, on selection data and on the device, in this run. It gets the "
        "alias only where it passes.",
    )
    promote: Literal["manual", "auto"] = Field(
        "manual",
        description="auto: what passes the gate gets the alias of `gate.against` as well. manual: `secateur promote` gives it.",
    )
    failed: Literal["register", "leave_out"] = Field(
        "register",
        description="What becomes of a knee that fails the gate: registered with the tag validation_status=failed, or left out.",
    )
    tracking_uri: str | None = Field(
        None,
        description="MLflow tracking server. Default: the environment variable MLFLOW_TRACKING_URI, else the embedded SQLite "
        "database in `mlruns/`. Credentials belong into MLflow's own environment variables.",
    )

    @field_validator("tracking_uri")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        if value and has_credentials(value):
            raise ValueError(
                "a tracking URI must not carry credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return value

    @model_validator(mode="after")
    def _gated(self) -> Self:
        if self.gate is None and (self.promote == "auto" or self.failed == "leave_out"):
            raise ValueError(
                "'promote: auto' and 'failed: leave_out' need a gate: write 'gate: {}' for one with its defaults"
            )
        return self
