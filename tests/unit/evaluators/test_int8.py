"""Files in int8: what is in them, how far they are from the originals, and that devices answer as this host does."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from conftest import REPOSITORY
from nets import images, network
from secateur.agent.latency import Protocol
from secateur.compression.groups import find_groups
from secateur.definition import EvaluatorDefinition
from secateur.errors import EvaluationFailed
from secateur.evaluators import DenseModel, Evaluator, Place
from secateur.evaluators.devices import open_devices
from secateur.evaluators.int8 import BATCH, quantized
from secateur.evaluators.metrics import relative_error
from secateur.evaluators.onnx_export import export
from secateur.evaluators.runtimes import host_for
from tiny import make_workload


def answers(file, *inputs):
    return host_for("onnxruntime", {}, 1).open(file).run([x.numpy() for x in inputs])[0]


@pytest.fixture(scope="module")
def evaluator():
    model = network("residual")
    workload = make_workload(model)
    objectives = {"accuracy": "maximize", "latency": "minimize"}
    definition = EvaluatorDefinition.model_validate({"objectives": objectives})
    place = Place(open_devices(definition, REPOSITORY), Protocol(block=2, copies=2, rounds=1))
    found = find_groups(model, workload.example_inputs)
    made = Evaluator(definition, DenseModel(model, workload, found.costs), place)
    yield made
    place.devices.close()


def test_weights_have_eight_bits_with_a_scale_for_each_channel_and_no_offset():
    model, x = network("residual"), images(BATCH + 8)
    file = export(model, (x,))
    made = quantized(file, [x.numpy()])
    stored = {entry.name: numpy_helper.to_array(entry) for entry in onnx.load_model_from_string(made).graph.initializer}
    weights = {name: array for name, array in stored.items() if array.dtype == np.int8 and array.ndim == 4}
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert len(weights) == len(convolutions)
    for name, array in weights.items():
        stem = name.removesuffix("_quantized")
        assert stored[f"{stem}_scale"].shape == (len(array),)
        assert not stored[f"{stem}_zero_point"].any()
    assert len(made) < len(file)
    exact, near = answers(file, x), answers(made, x)
    error = relative_error(torch.from_numpy(near), torch.from_numpy(exact))
    assert 0 < error < 0.02


def test_ranges_come_from_all_batches():
    """A file whose largest value lies in the last, smaller batch has room for it."""
    x = images(BATCH + 8)
    x[-1] *= 10
    file = export(nn.Sequential(nn.Conv2d(3, 4, 3)), (x,))
    near, exact = answers(quantized(file, [x.numpy()]), x[-1:]), answers(file, x[-1:])
    assert np.abs(near - exact).max() < 0.02 * np.abs(exact).max()


class Two(nn.Module):
    """Numbers of words, and a mask that scales them."""

    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, words, scale):
        return self.last((self.words(words) * scale[..., None]).mean(1))


def test_several_inputs_and_a_free_length_stay_as_they_are():
    torch.manual_seed(0)
    words, scale = torch.randint(0, 20, (40, 6)), torch.rand(40, 6)
    file = export(Two().eval(), (words[:2], scale[:2]), {"input_0": {1: "length"}, "input_1": {1: "length"}})
    made = quantized(file, [words.numpy(), scale.numpy()])
    shapes = [
        [(entry.name, str(entry.type)) for entry in onnx.load_model_from_string(f).graph.input] for f in (file, made)
    ]
    assert shapes[0] == shapes[1]
    near, exact = answers(made, words[:3, :4], scale[:3, :4]), answers(file, words[:3, :4], scale[:3, :4])
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_what_cannot_be_quantized_is_a_failure_with_its_reason():
    file = export(nn.Sequential(nn.Conv2d(3, 4, 3)), (images(2),))
    with pytest.raises(EvaluationFailed, match=r"ONNX Runtime cannot quantize the model: .+"):
        quantized(file, [np.zeros((4, 5, 8, 8), np.float32)])


def test_an_int8_network_is_measured_by_its_file_and_the_device_is_compared_with_this_host(evaluator, monkeypatch):
    dense = evaluator.files.dense
    made = evaluator.files.quantized(dense)
    found = evaluator.measure(made, "selection", ["accuracy", "latency", "size", "macs", "parameters"])
    assert found["size"].value == len(made.onnx) < len(dense.onnx)
    assert found["macs"].value == evaluator.costs.total
    assert found["latency"].details["min_ms"] > 0
    assert evaluator.deviation(made, dense, "selection").value == pytest.approx(
        evaluator.measure(made, "selection", ["damage"])["damage"].value
    )
    with pytest.raises(EvaluationFailed, match="the outputs of the device and of the torch module differ by"):
        evaluator.measure(replace(made, quantized=False), "selection", ["latency"])
    answered = evaluator.files.answers
    monkeypatch.setattr(evaluator.files, "answers", lambda *given: [1.1 * x for x in answered(*given)])
    with pytest.raises(EvaluationFailed, match=re.escape("the outputs of the device and of this host differ by")):
        evaluator.measure(made, "selection", ["latency"])
