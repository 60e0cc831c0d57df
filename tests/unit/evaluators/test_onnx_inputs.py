"""Inputs for a file that comes alone, and the files for which there are none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.errors import ModelError
from secateur.evaluators.onnx_inputs import random_inputs


def model(*inputs, stored=(), outputs=True):
    """One that gives back its first input. inputs: value infos."""
    name = inputs[0].name if inputs else stored[0].name
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "g", inputs, [result] * outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def tensor(shape, kind=TensorProto.FLOAT, name="x"):
    return helper.make_tensor_value_info(name, kind, shape)


def test_a_first_dimension_without_a_number_is_the_batch():
    (first, second), (again, _) = random_inputs(model(tensor(["n", 3]), tensor([4], TensorProto.INT64, "i")), 5, 2)
    assert (first.shape, first.dtype) == ((5, 3), np.float32)
    assert (second.shape, second.dtype) == ((4,), np.int64)
    assert set(second) <= {0, 1}
    assert not np.array_equal(first, again)


def test_stored_tensors_and_scalars():
    stored = numpy_helper.from_array(np.ones(3, np.float32), "w")
    ((only,),) = random_inputs(model(tensor([]), tensor([3], name="w"), stored=[stored]), 5, 1)
    assert only.shape == ()


def external():
    kept = numpy_helper.from_array(np.ones(3, np.float32), "w")
    kept.data_location = TensorProto.EXTERNAL
    kept.external_data.add(key="location", value="weights.bin")
    return model(tensor(["n", 3]), stored=[kept])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "m.onnx is empty"),
        (b"hello\nworld", "m.onnx is no ONNX model"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "has no graph"),
        (external(), r"another file \(weights.bin\).*onnx.save"),
        (model(tensor([1, 0])), "'x' has a dimension of 0"),
        (model(tensor([-1, 3])), "'x' has a dimension of -1"),
        (
            model(tensor(["n", "h", 3, "w"])),
            r"free dimensions besides its first one \(h, w\).*make_dynamic_shape_fixed",
        ),
        (model(tensor(["n", 2**40])), "takes .* MiB.*'batch'"),
        (model(tensor(["n", 3], TensorProto.STRING)), "'x' takes string"),
        (model(tensor(["n", 3], TensorProto.BFLOAT16)), "'x' takes bfloat16"),
        (model(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [3])), "'x' is no tensor"),
        (model(tensor(None)), "'x' declares no shape"),
        (model(stored=[numpy_helper.from_array(np.ones(3, np.float32), "x")]), "no inputs"),
        (model(tensor([3]), outputs=False), "no outputs"),
    ],
)
def test_what_cannot_be_measured_is_one_line_with_the_files_name(content, said):
    with pytest.raises(ModelError, match=said) as refused:
        random_inputs(content, 2, 1, "m.onnx")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("m.onnx")
