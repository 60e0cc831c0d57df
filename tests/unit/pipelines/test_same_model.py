"""What driver and workers must agree on: the weights, and calibration that batch norms can use."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from conftest import make_workload
from nets import shaken
from secateur.compression.storage import weights_digest
from secateur.definition import load_pipeline
from secateur.errors import DefinitionError, StateError, WorkloadError
from secateur.files import write
from secateur.pipelines import preparation, worker
from secateur.pipelines.state import open_run, open_state
from secateur.records import Workload

PIPELINE = """
name: tiny
workload: {factory: made:made}
search_space: {groups: [{methods: [l2]}]}
evaluator: {objectives: {accuracy: maximize, size: minimize}, calibration_images: 16}
search: {trials: 8}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(project, monkeypatch, workload: Workload) -> preparation.Prepared:
    monkeypatch.setattr(preparation, "load_workload", lambda *_: workload)
    return preparation.prepare(load_pipeline("tiny.yaml")[0], project)


class Flat(nn.Module):
    """Batch norms on vectors: one value per channel and sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)
        )

    def forward(self, x):
        return self.layers(x)


def check(definition, workload, images):
    evaluator = definition.evaluator.model_copy(update={"calibration_images": images})
    changed = definition.model_copy(update={"evaluator": evaluator})
    preparation.check_calibration_images(changed, workload, workload.build_model())


def test_one_calibration_sample_is_refused_where_a_batch_norm_sees_one_value(project):
    definition, _ = load_pipeline("tiny.yaml")
    workload = make_workload(shaken(Flat()))
    refused = r"tiny.yaml:5: with 1 calibration samples the batch norm 'layers.2' sees 1 value .*at least 2 samples"
    with pytest.raises(DefinitionError, match=refused):
        check(definition, workload, 1)
    for enough in (0, 2):
        check(definition, workload, enough)
    one_sample = dataclasses.replace(workload.data, calibration=Subset(workload.data.calibration, [0]))
    with pytest.raises(DefinitionError, match=refused):
        check(definition, dataclasses.replace(workload, data=one_sample), 64)


def test_one_sample_is_enough_where_it_has_many_values(project):
    check(load_pipeline("tiny.yaml")[0], make_workload(), 1)


def unseeded() -> Workload:
    workload = make_workload()

    def build_model():
        model = workload.build_model()
        with torch.no_grad():
            next(model.parameters()).add_(torch.rand(()))
        return model

    return dataclasses.replace(workload, build_model=build_model)


def test_a_model_that_is_another_one_at_every_call_is_refused(project, monkeypatch):
    with pytest.raises(WorkloadError, match="build_model must return the same weights at every call"):
        prepare(project, monkeypatch, unseeded())


def test_a_worker_that_builds_other_weights_than_the_driver_does_not_start(project, monkeypatch):
    open_state(project)
    identity = f"{weights_digest(make_workload().build_model())[:16]} on this device"
    run = open_run(project, load_pipeline("tiny.yaml")[0], "tiny", identity)
    write(run.dense_onnx, b"as exported by the driver")
    closed = []
    built = SimpleNamespace(model=unseeded().build_model(), close=lambda: closed.append(True))
    monkeypatch.setattr(worker, "prepare", lambda *_, **__: built)
    with pytest.raises(StateError, match="are not those that run tiny-.* was started with"):
        worker.rebuilt(run.path)
    assert closed
