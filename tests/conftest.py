from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateur.records import Workload
from tiny import make_workload

# No test reads what a user has set.
os.environ.pop("MLFLOW_TRACKING_URI", None)
CIFAR10 = {name: os.environ.pop(name) for name in ("CIFAR10_DATA", "CIFAR10_WEIGHTS") if name in os.environ}
"""Where real data and weights are; tests/end_to_end/test_resnet20.py alone uses them."""
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def workload() -> Workload:
    return make_workload()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The demo's trained weights, shared by all tests of a session and by none of the user's runs."""
    os.environ.setdefault("SECATEUR_CACHE", str(tmp_path_factory.mktemp("cache")))
