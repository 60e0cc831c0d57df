"""What the device itself is asked for, on this host as the device."""

from __future__ import annotations

import pytest
import torch

from conftest import REPOSITORY, make_workload
from nets import network
from secateur.agent.latency import Protocol
from secateur.compression.groups import find_groups
from secateur.definition import EvaluatorDefinition
from secateur.evaluators import Evaluator, Place
from secateur.evaluators.devices import open_devices
from secateur.workloads.roles import collect


def evaluator_for(**settings) -> Evaluator:
    model = network("residual")
    workload = make_workload(model)
    objectives = {"accuracy": "maximize", "latency": "minimize"}
    definition = EvaluatorDefinition.model_validate({"objectives": objectives, **settings})
    place = Place(open_devices(definition, REPOSITORY), Protocol(block=2, copies=2, rounds=1))
    return Evaluator(definition, workload, model, find_groups(model, workload.example_inputs).costs, place)


@pytest.fixture(scope="module")
def sampling():
    return evaluator_for(device_samples=50, batch=4, energy_command="date +%s.%N")


def test_the_device_scores_the_first_samples_itself(sampling):
    found = sampling.measure(sampling.files.dense, "selection", ["device_accuracy"])["device_accuracy"]
    inputs, targets = collect(sampling.workload.data.selection, 50)
    with torch.no_grad():
        outputs = sampling.model(*inputs)
    expected = float(sampling.workload.score(outputs, targets).float().mean())
    assert (found.value, found.samples) == (pytest.approx(expected), 50), "fifty, though batches of four make 52"
    assert found.provenance == "measured"
    assert "onnxruntime" in found.device


def test_every_figure_of_the_device_comes_with_where_it_was_measured(sampling):
    found = sampling.measure(sampling.files.dense, "search", sampling.everything)
    assert sampling.everything == list(sampling.registry), (
        "with samples and a meter there is nothing that cannot be measured"
    )
    for name in ("latency", "throughput", "memory", "energy", "device_accuracy"):
        assert found[name].value > 0
        assert (found[name].provenance, found[name].device) == ("measured", sampling.device)


def test_what_cannot_be_measured_says_what_to_do(monkeypatch):
    evaluator = evaluator_for()
    assert evaluator.unavailable("device_accuracy") == "set 'device_samples'"
    if not evaluator.on_device.devices.hello.energy:
        assert evaluator.unavailable("energy") == "give 'energy_command'"
    assert evaluator.unavailable("memory") is None
