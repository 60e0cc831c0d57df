from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from hypothesis import settings

from secateur.records import Workload
from tiny import make_workload

settings.register_profile("any machine", deadline=None)  # a busy one takes its time over an example
settings.load_profile("any machine")

# No test reads what a user has set.
os.environ.pop("MLFLOW_TRACKING_URI", None)
CIFAR10 = {name: os.environ.pop(name) for name in ("CIFAR10_DATA", "CIFAR10_WEIGHTS") if name in os.environ}
"""Where real data and weights are; tests/end_to_end/test_resnet20.py alone uses them."""
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

REPOSITORY = Path(__file__).resolve().parents[1]

LONG = (
    "end_to_end/test_nni_engine.py",
    "end_to_end/test_api.py",  # makes the run that several files look at: none waits for it then
    "end_to_end/test_faults.py",
    "end_to_end/test_devices.py",
    "contracts/test_samplers.py",
    "unit/compression/test_architectures.py",
    "unit/evaluators/test_evaluator.py",
)
"""Files that take longest. They come first, so that the processes of `make test`, which take file after file, end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies are kept in memory, each by the file that it would be in: a trial takes a tenth of what SQLite takes for it."""
    from optuna.storages import InMemoryStorage

    monkeypatch.setattr("secateur.search.study.open_storage", functools.cache(lambda _: InMemoryStorage()))


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once() -> None:
    """torch reads the sources of five hundred operators anew at every export, and twice asks its dispatcher for them in each
    namespace: more than half of the time that a small network takes."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    utils._materialize_cpp_cia_ops = functools.cache(utils._materialize_cpp_cia_ops)


@pytest.fixture(scope="session")
def workload() -> Workload:
    return make_workload()


@pytest.fixture(scope="session")
def dense_onnx(workload: Workload) -> bytes:
    """Its model as a file, for tests of what comes behind the export."""
    from secateur.evaluators.onnx_template import make_template

    return make_template(workload.build_model(), workload.example_inputs).dense


def of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the test processes of a session share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The demo's trained weights, shared by all tests of a session and by none of the user's runs."""
    os.environ.setdefault("SECATEUR_CACHE", str(of_all_processes(tmp_path_factory) / "cache"))
