"""What is put together by hand is what protobuf's own classes write."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.evaluators.onnx_parts import LARGE, OnnxParts


def a_model(*shapes: tuple[int, ...]) -> onnx.ModelProto:
    values = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)]
    tensors = [numpy_helper.from_array(value, f"w{i}") for i, value in enumerate(values)]
    tensors.append(numpy_helper.from_array(np.arange(LARGE, dtype=np.int64), "numbers"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])
    nodes = [helper.make_node("Identity", ["x"], ["y"], name="n" * 300)]
    return helper.make_model(helper.make_graph(nodes, "main", [x], [x], tensors), producer_name="test")


@pytest.mark.parametrize("shapes", [(), ((3,),), ((), (2, 500), (0, 7), (40, 30, 3, 3))])
def test_a_file_and_its_parts_are_the_same(shapes):
    model = a_model(*shapes)
    parts = OnnxParts.of(model.SerializeToString())
    assert set(parts.values) == {"numbers", *(f"w{i}" for i, s in enumerate(shapes) if 4 * np.prod(s) > LARGE)}
    assert parts.graph.ByteSize() < 2 * LARGE
    assert onnx.load_model_from_string(parts.file()) == model
    assert len(parts.file()) == model.ByteSize()


def test_other_values_have_their_own_shape():
    parts = OnnxParts.of(a_model((2, 3), (40, 30)).SerializeToString())
    other = {"w0": np.ones((1, 3), np.float32), "w1": np.ones((30, 20), np.float32).T}
    model = onnx.load_model_from_string(OnnxParts(parts.graph, {**parts.values, **other}).file())
    found = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    for name, value in other.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(found["numbers"], np.arange(LARGE))
