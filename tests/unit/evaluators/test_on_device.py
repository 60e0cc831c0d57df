"""What the device itself is asked for, on this host as the device."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import TypeAdapter
from torch.utils.data import Dataset

from conftest import REPOSITORY, make_workload
from nets import network
from scripted import result
from secateur.agent.latency import Protocol
from secateur.compression.groups import find_groups
from secateur.definition import EvaluatorDefinition
from secateur.errors import EvaluationFailed
from secateur.evaluators import DenseModel, Evaluator, Place
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.kept import Kept
from secateur.evaluators.devices.report import Report
from secateur.evaluators.metrics import Metric
from secateur.evaluators.on_device import Answer
from secateur.records import ROLES, Candidate, Job, Measurement, Plan
from secateur.workloads.roles import collect


def evaluator_for(workload=None, onnx=None, **settings) -> Evaluator:
    model = network("residual")
    workload = workload or make_workload(model)
    objectives = {"accuracy": "maximize", "latency": "minimize"}
    definition = EvaluatorDefinition.model_validate({"objectives": objectives, **settings})
    place = Place(open_devices(definition, REPOSITORY), Protocol(block=2, copies=2, rounds=1))
    costs = find_groups(model, workload.example_inputs).costs
    return Evaluator(definition, DenseModel(model, workload, costs, onnx), place)


class Forbidden(Dataset):
    """A data role that nobody may look at."""

    def __init__(self, role):
        self.role = role

    def __len__(self):
        return 100

    def __getitem__(self, index):
        raise AssertionError(f"a sample of {self.role} was read")


@pytest.fixture(scope="module")
def sampling(dense_onnx):
    return evaluator_for(onnx=dense_onnx, device_samples=50, batch=4, energy_command="date +%s.%N")


@pytest.mark.parametrize("role", ["search", "selection"])
def test_the_device_scores_samples_of_the_role_in_question_itself(sampling, role):
    """The search sees search data only, here as everywhere: selection data judges the finalists."""
    data = dataclasses.replace(
        sampling.workload.data, **{name: Forbidden(name) for name in set(ROLES) - {role, "calibration"}}
    )
    workload = dataclasses.replace(sampling.workload, data=data)
    evaluator = evaluator_for(workload, sampling.files.dense.onnx, device_samples=50, batch=4)
    found = evaluator.measure(evaluator.files.dense, role, ["device_accuracy"])["device_accuracy"]
    inputs, targets = collect(getattr(data, role), 50)
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


def test_what_cannot_be_measured_says_what_to_do(dense_onnx):
    evaluator = evaluator_for(onnx=dense_onnx)
    assert evaluator.unavailable("device_accuracy") == "set 'device_samples'"
    if not evaluator.measuring.devices.hello.energy:
        assert evaluator.unavailable("energy") == "give 'energy_command'"
    assert evaluator.unavailable("memory") is None


def test_how_long_it_may_wait_is_for_the_definition_to_say(dense_onnx):
    assert evaluator_for(onnx=dense_onnx, waiting=0).waiting.allowance(1.0) == 0.0
    assert evaluator_for(onnx=dense_onnx).waiting.allowance(1.0) > 0.0


@pytest.fixture
def loud(sampling, monkeypatch):
    """A device that is disturbed until somebody waits for it. Returns the allowances of what it was asked."""
    asked = []

    def measure(file, expected, names, timing, sample):
        asked.append(timing.allowance)
        quiet = timing.allowance > 0
        width = 0.01 if quiet else 0.1
        said = result(0.5, interval=[0.5 - width, 0.5 + width], disturbed=not quiet, waited=timing.allowance)
        return Answer("here", False, 4, TypeAdapter(Report).validate_python(said["result"]))

    monkeypatch.setattr(sampling.measuring.on_device, "measure", measure)
    return asked


def test_what_a_neighbour_disturbs_is_measured_again_and_nothing_else(sampling, monkeypatch):
    """Memory takes a process of its own for each model, and a neighbour does not change it."""
    asked = []

    def measure(file, expected, names, timing, sample):
        asked.append((set(names), sample is not None))
        quiet = timing.allowance > 0
        more = (
            {"energy_mj": 2.0}
            if quiet
            else {"candidate_memory_bytes": 7, "reference_memory_bytes": 9, "energy_mj": 3.0}
        )
        width = 0.01 if quiet else 0.1
        said = result(0.5, interval=[0.5 - width, 0.5 + width], disturbed=not quiet, **more)
        outputs = ([torch.zeros(4, 5)], torch.zeros(4).long()) if sample else None
        return Answer("here", False, 4, TypeAdapter(Report).validate_python(said["result"]), outputs)

    monkeypatch.setattr(sampling.measuring.on_device, "measure", measure)
    monkeypatch.setattr(sampling.waiting, "allowance", lambda most: most)
    names = ["latency", "memory", "energy", "device_accuracy"]
    found = sampling.measure(sampling.files.dense, "selection", names)
    assert asked == [(set(names), True), ({"latency", "energy"}, False)]
    assert found["latency"].interval == (0.49, 0.51)
    assert (found["memory"].value, found["energy"].value) == (7, 2.0)
    assert found["device_accuracy"].samples == 4


def test_the_second_measurement_counts_although_its_interval_is_wider(sampling, monkeypatch):
    """To keep the narrower of two intervals is to keep the one that is too narrow."""

    def measure(file, expected, names, timing, sample):
        low = 0.3 if timing.allowance else 0.4
        said = result(0.5, interval=[low, 0.6], disturbed=True)
        return Answer("here", False, 4, TypeAdapter(Report).validate_python(said["result"]))

    monkeypatch.setattr(sampling.measuring.on_device, "measure", measure)
    monkeypatch.setattr(sampling.waiting, "allowance", lambda most: most)
    assert sampling.measure(sampling.files.dense, "search", ["latency"])["latency"].interval == (0.3, 0.6)


NOTHING_CUT = Candidate({})


def test_a_candidate_that_may_reach_the_front_is_measured_again_when_the_device_is_quiet(sampling, loud):
    found = sampling.evaluate(Job(NOTHING_CUT, Plan(), allowance=1.0))
    assert loud == [0.0, 1.0]
    assert found.measurements["latency"].interval == (0.49, 0.51)
    assert found.waited > 0


def test_a_candidate_that_fails_after_it_has_waited_is_charged_for_it(sampling, loud, monkeypatch):
    def fails(context):
        """Only the quiet device's figures are too much for it."""
        if context.device.report.waited:
            raise ValueError("too quiet")
        return Measurement(1.0, "none", "computed")

    monkeypatch.setitem(sampling.registry, "damage", Metric(fails, "minimize", ""))
    found = sampling.evaluate(Job(NOTHING_CUT, Plan(), allowance=1.0))
    assert loud == [0.0, 1.0]
    assert "too quiet" in found.failure
    assert found.waited > 0


def test_the_budget_is_charged_for_a_measurement_that_fails(sampling, loud, monkeypatch):
    monkeypatch.setattr(sampling.waiting, "allowance", lambda most: most)
    before = sampling.waiting.spent
    measure = sampling.measuring.on_device.measure

    def fails(*request):
        answer = measure(*request)
        if answer.report.waited:
            raise EvaluationFailed("the outputs differ")
        return answer

    monkeypatch.setattr(sampling.measuring.on_device, "measure", fails)
    with pytest.raises(EvaluationFailed, match="differ"):
        sampling.measure(sampling.files.dense, "search", ["latency"])
    assert sampling.waiting.spent > before


def test_nobody_waits_for_a_candidate_that_the_front_has_passed(sampling, loud):
    hurdle = {"accuracy": 1.0, "latency": 0.1}
    found = sampling.evaluate(Job(NOTHING_CUT, Plan(), (hurdle,), allowance=1.0))
    assert loud == [0.0]
    assert found.waited == 0.0
    assert found.complete, "it was looked at in full"


def test_nobody_waits_without_an_allowance(sampling, loud):
    found = sampling.evaluate(Job(NOTHING_CUT, Plan()))
    assert loud == [0.0]
    assert found.measurements["latency"].interval == (0.4, 0.6), "the interval says so instead"
    assert found.measurements["latency"].details["disturbed"] == 1.0


def test_the_dense_model_spends_the_budget_of_the_run(sampling, loud, monkeypatch):
    monkeypatch.setattr(sampling.waiting, "allowance", lambda most: most / 2)
    before = sampling.waiting.spent
    sampling.measure(sampling.files.dense, "search", ["latency"])
    assert loud == [0.0, 5.0]
    assert sampling.waiting.spent > before


def test_the_dense_model_is_never_read_back_from_an_earlier_run(tmp_path, dense_onnx):
    """Its ratio to itself says how this run measures."""
    evaluator = evaluator_for(onnx=dense_onnx)
    kept = Kept(tmp_path)
    evaluator.measuring.on_device._kept = kept
    for _ in range(2):
        evaluator.measure(evaluator.files.dense, "search", ["latency"])
    assert not list(tmp_path.iterdir())
