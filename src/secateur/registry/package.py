"""What is sent, and where to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from secateur.records import RunRecord, Version

DENSE = "dense"


def server_named(given: str | None) -> str | None:
    """A tracking server's address as given, else the environment's; None where neither names one, or an empty one."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or None


@dataclass(frozen=True)
class Target:
    """Where to publish: the registered model's name and alias, and the server; None is the embedded database.

    promotes: whether what has passed the gate takes the place of the version that serves. leaves_out: whether a knee that has
    failed it is not registered.
    """

    name: str
    alias: str
    tracking_uri: str | None
    promotes: bool = False
    leaves_out: bool = False

    @classmethod
    def of(cls, register: Mapping[str, Any]) -> Target:
        """From a definition's block `register`, as written."""
        uri = server_named(register["tracking_uri"])
        promotes, leaves_out = register.get("promote") == "auto", register.get("failed") == "leave_out"
        return cls(register["name"], register["alias"], uri, promotes, leaves_out)


@dataclass(frozen=True)
class Package:
    """What lies on disk for one run.

    example: an array per model input, by name: the input example of the registered models. outputs: the model's answer to it, by
    name. digests: of each data role.
    """

    record: RunRecord
    folder: Path
    state: Path
    example: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """What a tracking server holds of a run. runs: MLflow's run id of each part: our run id, `dense`, a finalist's name."""

    versions: list[Version]
    runs: Mapping[str, str]
