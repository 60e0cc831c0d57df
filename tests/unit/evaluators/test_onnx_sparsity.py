"""The pattern N:M in files made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur.evaluators.onnx_sparsity import misses

CONV = {"op_type": "Conv", "inputs": ["x", "w"], "outputs": ["y"]}
MATMUL = {"op_type": "MatMul", "inputs": ["x", "w"], "outputs": ["y"]}
GEMM = {"op_type": "Gemm", "inputs": ["x", "w"], "outputs": ["y"]}


def model(weight, *nodes):
    """A file that is never run: only its nodes and its weight `w` count."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    made = [helper.make_node(**node) for node in nodes]
    graph = helper.make_graph(made, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph).SerializeToString()


def along(axis, shape, kept=2, window=4):
    """Weights of this shape of which the last `kept` of each window along an axis are not zero."""
    weight = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    index = np.arange(shape[axis]) % window < window - kept
    np.moveaxis(weight, axis, 0)[index] = 0
    return weight


@pytest.mark.parametrize(
    ("node", "shape", "axis"),
    [
        (CONV, (8, 12, 3, 3), 1),
        (CONV, (8, 12, 5), 1),
        (MATMUL, (12, 8), 0),
        (MATMUL, (4, 12, 8), 1),
        (MATMUL | {"inputs": ["w", "x"]}, (8, 12), 1),
        (GEMM, (12, 8), 0),
        (GEMM | {"transB": 1}, (8, 12), 1),
        (GEMM | {"inputs": ["w", "x"]}, (8, 12), 1),
        (GEMM | {"inputs": ["w", "x"], "transA": 1}, (12, 8), 0),
    ],
)
def test_windows_run_along_the_input_channels_and_nowhere_else(node, shape, axis):
    assert misses(model(along(axis, shape), node)) == {"w": None}
    for other in {*range(len(shape))} - {axis}:
        if shape[other] % 4 == 0:
            assert misses(model(along(other, shape), node))["w"] is not None


def test_one_window_too_full_is_enough():
    weight = along(1, (8, 12, 3, 3))
    weight[5, 8, 2, 0] = 1.0
    expected = "more than 2 non-zeros in 1 of 216 windows of 4 input channels, up to 3"
    assert misses(model(weight, CONV)) == {"w": expected}
    assert misses(model(weight, CONV), n=3) == {"w": None}


def test_windows_begin_at_multiples_of_m():
    """0 1 1 0 | 0 1 1 0 has the pattern, and so has 0 0 1 1 | 1 1 0 0, though four in a row are not zero there."""
    weight = np.array([[0, 0, 1, 1, 1, 1, 0, 0]], np.float32)
    assert misses(model(weight, GEMM | {"transB": 1})) == {"w": None}
    shifted = np.roll(weight, 2, axis=1)
    assert misses(model(shifted, GEMM | {"transB": 1}))["w"].startswith("more than 2 non-zeros in 1 of 2 windows")


def test_other_patterns():
    weight = along(1, (4, 16), kept=1, window=8)
    assert misses(model(weight, GEMM | {"transB": 1}), n=1, m=8) == {"w": None}
    assert misses(model(along(1, (4, 16), kept=2, window=8), GEMM | {"transB": 1}), n=1, m=8)["w"] is not None


def test_what_has_no_sparse_kernel_is_told_apart():
    assert misses(model(along(1, (8, 3, 3, 3)), CONV)) == {"w": "its 3 input channels are no multiple of 4"}
    grouped = misses(model(along(1, (8, 4, 3, 3)), CONV | {"group": 2}))
    assert grouped == {"w": "a convolution of 2 groups has no sparse kernel"}


def test_a_shared_weight_must_have_the_pattern_wherever_it_is_read():
    weight = along(0, (8, 8))
    assert misses(model(weight, MATMUL, GEMM)) == {"w": None}
    for nodes in ((MATMUL, GEMM | {"transB": 1}), (GEMM | {"transB": 1}, MATMUL)):
        assert misses(model(weight, *nodes))["w"] is not None


def test_what_no_layer_multiplies_with_is_no_weight():
    add = {"op_type": "Add", "inputs": ["x", "w"], "outputs": ["y"]}
    assert misses(model(np.ones((8, 8), np.float32), add)) == {}
    assert misses(model(np.ones(8, np.float32), MATMUL)) == {}, "a vector"
