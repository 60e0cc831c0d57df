"""What every runtime promises. A new one passes by being in the registry; one that is not installed is skipped with its reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import trtexec
from nets import images, network
from secateur.agent.runtimes import RUNTIMES, Available, RuntimeFailure, Settings, Unavailable, check_options
from secateur.errors import EvaluationFailed
from secateur.evaluators.formats import FORMATS, ONNX, convert
from secateur.evaluators.onnx_export import export

pytestmark = pytest.mark.parametrize("name", RUNTIMES)

ELSEWHERE = {
    "litert": "its converter does not install beside the pinned set: an environment of its own runs this suite",
    "tensorrt": "it needs an NVIDIA GPU; below, a stand-in for trtexec answers",
}
"""Runtimes that the dev group does not install."""


@pytest.fixture
def opened(name, tmp_path, monkeypatch):
    """content, threads → session, where the runtime is here. For trtexec there is a stand-in."""
    if name == "tensorrt" and isinstance(RUNTIMES[name].probe({}), Unavailable):
        trtexec.install(tmp_path / "bin", monkeypatch)
    found = RUNTIMES[name].probe(RUNTIMES[name].chosen({}))
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)

    def open_(content: bytes, threads: int = 1):
        file = tmp_path / f"model.{RUNTIMES[name].format}"
        file.write_bytes(content)
        return RUNTIMES[name].open(file, Settings(threads, cache=tmp_path / "cache"))

    return open_


@pytest.fixture(scope="module")
def written():
    """module, its inputs, a runtime's format → the file, made once."""
    made = {}

    def write(module: nn.Module, inputs: tuple[torch.Tensor, ...], suffix: str) -> bytes:
        key = (type(module), str([x.shape for x in inputs]), suffix)
        if key not in made:
            if suffix == ONNX:
                made[key] = export(module, inputs).SerializeToString()
            elif reason := FORMATS[suffix].missing:
                pytest.skip(reason)
            else:
                made[key] = convert(suffix, module, inputs)
        return made[key]

    return write


@pytest.fixture
def ready(name, opened, written):
    """module, its inputs → an opened session."""
    return lambda module, *inputs: opened(written(module.eval(), inputs, RUNTIMES[name].format))


class Difference(nn.Module):
    def forward(self, one, two):
        return one - two


class AsFloats(nn.Module):
    def forward(self, ids):
        return ids.float()


def arrays(*tensors):
    return [x.numpy() for x in tensors]


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
    if name in ELSEWHERE and isinstance(found, Unavailable):
        pytest.skip(f"{ELSEWHERE[name]} ({found.reason})")
    assert isinstance(found, Available), "the dev group installs every runtime that this machine can have"


def test_options_that_it_does_not_have_are_named(name):
    assert check_options(name, {}) is None
    assert f"{name} has no option 'colour'" in check_options(name, {"colour": "red"})
    for option, values in RUNTIMES[name].options.items():
        assert check_options(name, {option: values[-1]}) is None
        assert values[0] in check_options(name, {option: "red"})


@pytest.mark.parametrize("batch", [1, 3])
def test_it_says_what_torch_says(name, batch, ready):
    model, x = network("residual"), images(batch, seed=7)
    with torch.no_grad():
        expected = model(x).numpy()
    found = ready(model, x).run(arrays(x))
    assert np.abs(found - expected).max() <= RUNTIMES[name].rounding({}) * np.abs(expected).max()


def test_an_output_is_not_overwritten_by_the_next_run(name, ready):
    session = ready(network("residual"), images(1))
    first = session.run(arrays(images(1, seed=1)))
    kept = first.copy()
    second = session.run(arrays(images(1, seed=2)))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(session.run(arrays(images(1, seed=1))), kept)


def test_inputs_keep_their_order(name, ready):
    one, two = torch.full((1, 2), 5.0), torch.full((1, 2), 3.0)
    np.testing.assert_array_equal(ready(Difference(), one, two).run(arrays(one, two)), np.full((1, 2), 2, np.float32))


def test_the_order_is_the_files_and_not_the_alphabets(name, opened):
    if RUNTIMES[name].format != ONNX:
        pytest.skip("we choose the names in files that we convert")
    places = [helper.make_tensor_value_info(which, TensorProto.FLOAT, ["n", 2]) for which in ("zeta", "alpha", "y")]
    graph = helper.make_graph([helper.make_node("Sub", ["zeta", "alpha"], ["y"])], "g", places[:2], places[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    one, two = np.full((1, 2), 5, np.float32), np.full((1, 2), 3, np.float32)
    np.testing.assert_array_equal(opened(model.SerializeToString()).run([one, two]), one - two)


def test_whole_numbers_go_in(name, ready):
    ids = torch.tensor([[1, 2, 70_000]])
    np.testing.assert_array_equal(ready(AsFloats(), ids).run(arrays(ids)), ids.numpy().astype(np.float32))


def test_what_is_no_model_is_refused_in_one_line(name, opened):
    with pytest.raises(RuntimeFailure, match="does not load the model: .+") as refused:
        opened(b"this is no model")
    assert "\n" not in str(refused.value)


def test_what_does_not_fit_is_refused(name, ready):
    session = ready(network("residual"), images(1))
    with pytest.raises(RuntimeFailure, match="does not run the model"):
        session.run([np.zeros((1, 7, 8, 8), np.float32)])


def test_computations_are_in_float32(name, ready):
    """A dot product of many terms that bfloat16 would round away."""
    terms = 4096
    layer = nn.Linear(terms, 1, bias=False)
    nn.init.constant_(layer.weight, 1 + 2**-12)
    found = ready(layer, torch.ones(1, terms)).run([np.ones((1, terms), np.float32)])
    assert found[0, 0] == pytest.approx(terms * (1 + 2**-12), rel=1e-5)


def test_blocks_take_the_batches_in_turn_and_time_each_run(name, ready):
    if not RUNTIMES[name].in_process:
        pytest.skip("one process times a whole block, of one batch")
    session = ready(network("residual"), images(1))
    seen = []
    original = session.run
    session.run = lambda inputs: seen.append(float(inputs[0][0, 0, 0, 0])) or original(inputs)
    batches = [[np.full((1, 3, 8, 8), value, np.float32)] for value in (0.0, 1.0, 2.0)]
    ticks = iter(range(100))
    times = session.block(batches, 2, 4, clock=lambda: next(ticks))
    assert seen == [2.0, 0.0, 1.0, 2.0]
    assert times == [1, 1, 1, 1]


def test_what_cannot_be_converted_is_said(name):
    suffix = RUNTIMES[name].format
    if suffix == ONNX:
        pytest.skip("nothing is converted")
    if reason := FORMATS[suffix].missing:
        pytest.skip(reason)
    with pytest.raises(EvaluationFailed, match=f"cannot be converted to {suffix}: .+"):
        convert(suffix, DependsOnTheData(), (torch.ones(1, 2),))


class DependsOnTheData(nn.Module):
    def forward(self, x):
        return x if float(x.sum()) > 0 else -x
