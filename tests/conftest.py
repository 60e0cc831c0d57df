from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from nets import images, residual, shaken
from secateur.records import Workload
from secateur.workloads.roles import split_roles
from secateur.workloads.scores import top1

# No test reads what a user has set.
os.environ.pop("MLFLOW_TRACKING_URI", None)
CIFAR10 = {name: os.environ.pop(name) for name in ("CIFAR10_DATA", "CIFAR10_WEIGHTS") if name in os.environ}
"""Where real data and weights are; tests/end_to_end/test_resnet20.py alone uses them."""
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

REPOSITORY = Path(__file__).resolve().parents[1]


def make_workload(model: torch.nn.Module | None = None, samples: int = 600) -> Workload:
    """A workload that needs no training: the labels are what the network itself says, a few of them wrong."""
    torch.manual_seed(0)
    model = model or shaken(residual())
    inputs = images(samples)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    labels[::9] = 0
    return Workload(
        name="tiny",
        build_model=lambda: model,
        example_inputs=(inputs[:2],),
        data=split_roles(TensorDataset(inputs, labels)),
        loss=torch.nn.functional.cross_entropy,
        score=top1,
    )


@pytest.fixture(scope="session")
def workload() -> Workload:
    return make_workload()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The demo's trained weights, shared by all tests of a session and by none of the user's runs."""
    os.environ.setdefault("SECATEUR_CACHE", str(tmp_path_factory.mktemp("cache")))
