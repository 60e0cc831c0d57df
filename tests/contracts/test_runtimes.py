"""What every runtime promises. A new one passes by being in the registry; one that is not installed is skipped with its reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from nets import images, network
from secateur.agent.runtimes import RUNTIMES, Available, RuntimeFailure, Settings, Unavailable, check_options
from secateur.evaluators.onnx_export import export

pytestmark = pytest.mark.parametrize("name", RUNTIMES)


@pytest.fixture(scope="module")
def residual() -> tuple[torch.nn.Module, bytes]:
    model = network("residual")
    return model, export(model, (images(),)).SerializeToString()


@pytest.fixture
def opened(name, tmp_path):
    """content, threads → session, where the runtime is here."""
    found = RUNTIMES[name].probe(RUNTIMES[name].chosen({}))
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)

    def open_(content: bytes, threads: int = 1):
        file = tmp_path / "model.onnx"
        file.write_bytes(content)
        return RUNTIMES[name].open(file, Settings(threads))

    return open_


def small(inputs, output, nodes) -> bytes:
    """inputs, output: (name, type, shape)."""
    places = [helper.make_tensor_value_info(*entry) for entry in inputs]
    graph = helper.make_graph(nodes, "g", places, [helper.make_tensor_value_info(*output)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_it_says_whether_it_can_be_used_with_every_option(name):
    runtime = RUNTIMES[name]
    usual = runtime.chosen({})
    for option, values in {"": ("",), **runtime.options}.items():
        for value in values:
            found = runtime.probe({**usual, option: value} if option else usual)
            assert isinstance(found, (Available, Unavailable))
            assert found.version if isinstance(found, Available) else found.reason
    assert runtime.summary


def test_the_tested_set_has_it(name):
    found = RUNTIMES[name].probe(RUNTIMES[name].chosen({}))
    assert isinstance(found, Available), "the dev group installs every runtime that this machine can have"


def test_options_that_it_does_not_have_are_named(name):
    assert check_options(name, {}) is None
    assert f"{name} has no option 'colour'" in check_options(name, {"colour": "red"})
    for option, values in RUNTIMES[name].options.items():
        assert check_options(name, {option: values[-1]}) is None
        assert values[0] in check_options(name, {option: "red"})


@pytest.mark.parametrize("batch", [1, 3])
def test_it_says_what_torch_says(name, batch, residual, opened):
    model, content = residual
    x = images(batch, seed=7)
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(opened(content).run([x.numpy()]), expected, rtol=1e-4, atol=1e-4)


def test_an_output_is_not_overwritten_by_the_next_run(name, residual, opened):
    session = opened(residual[1])
    first = session.run([images(1, seed=1).numpy()])
    kept = first.copy()
    second = session.run([images(1, seed=2).numpy()])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(session.run([images(1, seed=1).numpy()]), kept)


def test_inputs_keep_their_order(name, opened):
    shape = ["n", 2]
    model = small(
        [("zeta", TensorProto.FLOAT, shape), ("alpha", TensorProto.FLOAT, shape)],
        ("y", TensorProto.FLOAT, shape),
        [helper.make_node("Sub", ["zeta", "alpha"], ["y"])],
    )
    one, two = np.full((1, 2), 5, np.float32), np.full((1, 2), 3, np.float32)
    np.testing.assert_array_equal(opened(model).run([one, two]), np.full((1, 2), 2, np.float32))


def test_whole_numbers_go_in(name, opened):
    model = small(
        [("ids", TensorProto.INT64, ["n", 3])],
        ("y", TensorProto.FLOAT, ["n", 3]),
        [helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.FLOAT)],
    )
    ids = np.array([[1, 2, 70_000]], np.int64)
    np.testing.assert_array_equal(opened(model).run([ids]), ids.astype(np.float32))


def test_what_is_no_model_is_refused_in_one_line(name, opened):
    with pytest.raises(RuntimeFailure, match="does not load the model: .+") as refused:
        opened(b"this is no model")
    assert "\n" not in str(refused.value)


def test_what_does_not_fit_is_refused(name, residual, opened):
    session = opened(residual[1])
    with pytest.raises(RuntimeFailure, match="does not run the model"):
        session.run([np.zeros((1, 7, 8, 8), np.float32)])


def test_computations_are_in_float32(name, opened):
    """A dot product of many terms that bfloat16 would round away."""
    terms = 4096
    weight = np.full((terms, 1), 1 + 2**-12, np.float32)
    model = onnx.load_model_from_string(
        small(
            [("x", TensorProto.FLOAT, ["n", terms])],
            ("y", TensorProto.FLOAT, ["n", 1]),
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
        )
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    found = opened(model.SerializeToString()).run([np.ones((1, terms), np.float32)])
    assert found[0, 0] == pytest.approx(terms * (1 + 2**-12), rel=1e-5)


def test_blocks_take_the_batches_in_turn_and_time_each_run(name, residual, opened):
    session = opened(residual[1])
    seen = []
    original = session.run
    session.run = lambda inputs: seen.append(float(inputs[0][0, 0, 0, 0])) or original(inputs)
    batches = [[np.full((1, 3, 8, 8), value, np.float32)] for value in (0.0, 1.0, 2.0)]
    ticks = iter(range(100))
    times = session.block(batches, 2, 4, clock=lambda: next(ticks))
    assert seen == [2.0, 0.0, 1.0, 2.0]
    assert times == [1, 1, 1, 1]
