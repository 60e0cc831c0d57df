"""A distribution with a plug-in of each kind, as somebody else would publish it."""

from __future__ import annotations

from pathlib import Path

from secateur.compression.criteria import METHODS
from secateur.compression.criteria.weights import WEIGHT_METHODS
from secateur.definition import DEVICE_KINDS
from secateur.evaluators import METRICS
from secateur.evaluators.runtimes import RUNTIMES
from secateur.recovery.trainers import TRAINERS
from secateur.search.samplers import SAMPLERS
from secateur.workloads import WORKLOADS

REGISTRIES = (METHODS, WEIGHT_METHODS, METRICS, SAMPLERS, RUNTIMES, WORKLOADS, TRAINERS, DEVICE_KINDS)

THINGS = """
from typing import Literal
from optuna.samplers import RandomSampler
from secateur.compression.criteria import Method
from secateur.compression.criteria.weights import WeightMethod
from secateur.definition import DeviceKind
from secateur.definition.declared import Declared
from secateur.evaluators import Metric
from secateur.evaluators.devices.local import LocalTransport
from secateur.records import Measurement
from secateur.search.samplers import Sampler

def count(tensors):
    return sum(w.abs().sum(1) for w in tensors.producers) + 1.0

CRITERION = Method(count, "the sum of the weights and one")
WEIGHT_CRITERION = WeightMethod(lambda weights: weights.values.square(), "the square")
METRIC = Metric(lambda context: Measurement(float(len(context.outputs)), "samples", "computed"), "maximize", "how many samples")
SAMPLER = Sampler(lambda seed: RandomSampler(seed=seed + 1), "noise of another seed")

class Cable(Declared):
    kind: Literal["cable"]
    length: float
    python: str = "python3"
    folder: str = "/tmp/cable"

DEVICE = DeviceKind(Cable, lambda block, root: [LocalTransport(root)], "over a cable")

def train(model, teacher, data, budget, save):
    '''Nothing at all.'''
    return model

def workload():
    '''A small network and noise.'''
    from conftest import make_workload
    return make_workload()
"""

RUNTIME = """
from secateur.agent.runtimes.base import Available, Runtime, Session

class _Zero(Session):
    def __init__(self, model, settings):
        import onnxruntime
        self._session = onnxruntime.InferenceSession(str(model))

    def run(self, inputs):
        names = [entry.name for entry in self._session.get_inputs()]
        return self._session.run(None, dict(zip(names, inputs)))

RUNTIME = Runtime("ONNX Runtime by another name", "onnx", lambda options: Available("7.1"), _Zero)
"""

POINTS = {
    "criteria": {"count": "things_of_test:CRITERION"},
    "weight_criteria": {"square": "things_of_test:WEIGHT_CRITERION"},
    "metrics": {"howmany": "things_of_test:METRIC"},
    "samplers": {"noise": "things_of_test:SAMPLER"},
    "devices": {"cable": "things_of_test:DEVICE"},
    "workloads": {"tiny-noise": "things_of_test:workload"},
    "trainers": {"nothing": "things_of_test:train"},
    "runtimes": {"zero": "runtime_of_test:RUNTIME"},
}


def install(folder: Path, name: str = "things", points=POINTS, **modules: str) -> None:
    """Lay out a distribution as pip would. modules: further files of it."""
    information = folder / f"{name}-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[secateur.{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, text in {"things_of_test": THINGS, "runtime_of_test": RUNTIME, **modules}.items():
        (folder / f"{module}.py").write_text(text)


def forget() -> None:
    """Let the registries look again at what is installed."""
    for registry in REGISTRIES:
        registry.__dict__.pop("_plugins", None)
        registry._loaded.clear()
