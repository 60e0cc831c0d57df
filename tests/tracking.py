"""A person's own session on a tracking server, left as it was found."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import mlflow

ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@contextlib.contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """mlflow's addresses inside. It puts them into the environment too, where later runs and their processes would find them."""
    before, environment = mlflow.get_tracking_uri(), {name: os.environ.get(name) for name in ADDRESSES}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(None)  # that of the tracking server
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
