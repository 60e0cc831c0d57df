"""The block `register`."""

from __future__ import annotations

from pydantic import Field, field_validator

from secateur.definition.declared import Declared, Name
from secateur.redaction import has_credentials


class RegisterDefinition(Declared):
    """Where the survivors go."""

    name: Name = Field(description="Name of the registered model in MLflow.")
    alias: Name = Field("candidate", description="Alias of the version at the knee of the front.")
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
