"""A person's own session on a tracking server, left as it was found."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import mlflow


@contextlib.contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """mlflow's address inside. It puts it into the environment too, where later runs of the same process would find it."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
        if before[2] is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
