"""Files of gated networks: the same outputs as torch's on every path, and only the work of the open blocks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nets import images, network
from secateur.compression.gates import gated, gated_blocks, set_threshold
from secateur.errors import ModelError
from secateur.evaluators.onnx_export import export
from secateur.gating import GatedSession, closings, file_on_path, module_on_path, prices_of
from secateur.gating.onnx_graph import THRESHOLD, settled
from secateur.gating.placing import decisions

GATES = {"layer1.0": 8, "layer1.1": 8, "layer2.1": 16}


def varied(count: int, seed: int) -> torch.Tensor:
    """Images of several brightnesses and contrasts, which take several paths."""
    draw = torch.Generator().manual_seed(seed)
    shape = (count, 3, 1, 1)
    return images(count, seed) * (0.2 + 3 * torch.rand(count, 1, 1, 1, generator=draw)) + torch.randn(
        shape, generator=draw
    )


@pytest.fixture(scope="module")
def model():
    made = gated(network("residual"), GATES)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for block in gated_blocks(made).values():
            block.gate.weight.copy_(4 * torch.randn(block.gate.weight.shape, generator=generator))
            block.norm.bias.zero_()
        set_threshold(made, -torch.inf)
        for block in gated_blocks(made).values():  # half of the samples go through each
            logits = []
            hook = block.norm.register_forward_hook(lambda _m, _i, logit, logits=logits: logits.append(logit))
            made(varied(200, 1))
            hook.remove()
            block.norm.bias.sub_(logits[0].median())
    set_threshold(made, 0.0)
    return made


@pytest.fixture(scope="module")
def file(model):
    return export(model, (images(),))


@torch.no_grad()
def test_every_path_gives_what_torch_gives(model, file):
    session, paths = GatedSession(file), set()
    inputs = varied(200, 3)
    expected, opened = model(inputs), decisions(model, inputs)
    for number in range(len(inputs)):
        frame = session.frame({"input": inputs[number : number + 1].numpy()})
        assert frame.opened == tuple(name for name in GATES if opened[name][number])
        assert np.allclose(frame.outputs["output"][0], expected[number], rtol=1e-3, atol=1e-4)
        paths.add(frame.opened)
    assert len(paths) == 8
    batch = session.frame({"input": inputs.numpy()})
    assert batch.opened == tuple(GATES)
    assert np.allclose(batch.outputs["output"], expected, rtol=1e-3, atol=1e-4)


def test_a_file_is_run_without_a_threshold_and_with_one(model, file):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = {"input": images(4).numpy()}
    assert [entry.name for entry in session.get_inputs()] == ["input"]
    (plain,) = session.run(None, given)
    (closed,) = session.run(None, {**given, THRESHOLD: np.array(1e6, np.float32)})
    with torch.no_grad():
        assert np.allclose(plain, model(images(4)), rtol=1e-3, atol=1e-4)
    assert not np.allclose(plain, closed, atol=1e-2)
    frame = GatedSession(file).frame(given, threshold=1e6)
    assert np.array_equal(frame.outputs["output"], closed)
    prices = prices_of(model, (images(),))
    assert (frame.opened, frame.macs) == ((), prices.others + prices.gates)


def test_weights_lie_in_the_branch_that_reads_them(file):
    graph = onnx.load_model_from_string(file).graph
    assert sum(node.op_type == "If" for node in graph.node) == 3
    outside = [entry.name for entry in graph.initializer]
    assert not [name for name in outside if ".block." in name]
    assert outside.count(THRESHOLD) == 1


def test_a_file_without_gates_is_refused(dense_onnx, model):
    with pytest.raises(ModelError, match="has no gates"):
        GatedSession(dense_onnx)
    with pytest.raises(ModelError, match="kept 0 of 3 gates"):
        settled(dense_onnx, prices_of(model, (images(),)))


@torch.no_grad()
def test_a_file_and_a_module_that_take_one_path_whatever_they_are_given(model, file):
    prices, inputs = prices_of(model, (images(),)), varied(20, 4)
    assert closings(prices) == [(), *((name,) for name in GATES), tuple(GATES)]
    for closed in closings(prices):
        expected = module_on_path(model, closed)
        assert all((opened == (name not in closed)).all() for name, opened in decisions(expected, inputs).items())
        frame = GatedSession(file_on_path(file, prices, closed)).frame({"input": inputs.numpy()})
        assert frame.opened == tuple(name for name in GATES if name not in closed)
        assert np.allclose(frame.outputs["output"], expected(inputs), rtol=1e-3, atol=1e-4)
    assert not np.isinf([block.threshold for block in gated_blocks(model).values()]).any()
