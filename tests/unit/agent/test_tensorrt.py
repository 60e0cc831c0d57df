"""trtexec: what it is told, what is read from what it writes. A stand-in answers; no GPU is at hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

import trtexec
from secateur.agent.runtimes import RUNTIMES, Available, RuntimeFailure, Settings, Unavailable
from secateur.agent.runtimes.onnx_interface import interface_of
from secateur.agent.runtimes.tensorrt import complaint, outputs_in, times_in

TENSORRT = RUNTIMES["tensorrt"]

TIMES = """[
  { "startEnqMs" : 1101.94, "endEnqMs" : 1102.04, "startH2dMs" : 1101.9, "endH2dMs" : 1101.95, "startComputeMs" : 1101.95, "endComputeMs" : 1102.37, "startD2hMs" : 1102.37, "endD2hMs" : 1102.38, "h2dMs" : 0.0524902, "computeMs" : 0.41568, "d2hMs" : 0.00878906, "latencyMs" : 0.476959 }
, { "startEnqMs" : 1102.4, "endEnqMs" : 1102.5, "startH2dMs" : 1102.4, "endH2dMs" : 1102.45, "startComputeMs" : 1102.45, "endComputeMs" : 1102.86, "startD2hMs" : 1102.86, "endD2hMs" : 1102.87, "h2dMs" : 0.05, "computeMs" : 0.41, "d2hMs" : 0.009, "latencyMs" : 0.469, "endToEndMs" : 0.6 }
]
"""
"""In the form of TensorRT 10; the last key of the second is one that version 8 has besides."""

OUTPUTS = """[
  { "name" : "logits"
  , "dimensions" : "2x3"
  , "values" : [ -1.5, 0, 2e-05, 3, 4.25, -7 ]
  }
, { "name" : "features"
  , "dimensions" : "1"
  , "values" : [ 9 ]
  }
]
"""

SAID = """&&&& RUNNING TensorRT.trtexec [TensorRT v8602] # trtexec --onnx=m.onnx
[11/26/2026-10:00:00] [I] === Model Options ===
[11/26/2026-10:00:01] [W] [TRT] something is deprecated
[11/26/2026-10:00:02] [E] Error[4]: [graphShapeAnalyzer.cpp::analyzeShapes::1872] the first reason
[11/26/2026-10:00:02] [E] Engine could not be created from network
&&&& FAILED TensorRT.trtexec [TensorRT v8602] # trtexec --onnx=m.onnx
"""


def model(shape, names=("x", "y")) -> bytes:
    """y, then x, doubled; the second output is the first's negative."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("twice", "less")]
    nodes = [helper.make_node("Sub", list(names), ["twice"]), helper.make_node("Neg", ["twice"], ["less"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


@pytest.fixture
def calls(tmp_path, monkeypatch):
    file = trtexec.install(tmp_path / "bin", monkeypatch)
    return lambda: [json.loads(line) for line in file.read_text().splitlines() if '"help"' not in line]


@pytest.fixture
def opened(tmp_path, calls):
    def open_(content, **options):
        file = tmp_path / "model.onnx"
        file.write_bytes(content)
        return TENSORRT.open(file, Settings(options=options, cache=tmp_path / "engines"))

    return open_


def test_recorded_times_are_read(tmp_path):
    file = tmp_path / "times.json"
    file.write_text(TIMES)
    assert times_in(file) == pytest.approx([0.000476959, 0.000469])


def test_recorded_outputs_are_read_by_name(tmp_path):
    file = tmp_path / "outputs.json"
    file.write_text(OUTPUTS)
    found = outputs_in(file)
    np.testing.assert_array_equal(found["logits"], np.array([[-1.5, 0, 2e-05], [3, 4.25, -7]], np.float32))
    assert found["features"].shape == (1,)


def test_the_first_error_line_is_the_reason():
    assert complaint(SAID) == "Error[4]: [graphShapeAnalyzer.cpp::analyzeShapes::1872] the first reason"
    assert complaint("Segmentation fault\n") == "Segmentation fault"
    assert complaint("") == "it said nothing"


@pytest.mark.parametrize("text", ["", "[ { ", '[\n  { "latencyMs" : nan }\n]'])
def test_a_file_that_cannot_be_read_is_a_failure(tmp_path, text):
    file = tmp_path / "times.json"
    file.write_text(text)
    with pytest.raises(RuntimeFailure, match=r"no readable times\.json"):
        times_in(file)


def test_the_version_names_precision_and_gpu(calls):
    found = TENSORRT.probe({"precision": "float16"})
    assert isinstance(found, Available)
    assert found.version.startswith("v100700 float16, ")


def test_without_it_the_reason_says_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = TENSORRT.probe({})
    assert isinstance(found, Unavailable)
    assert "JetPack" in found.reason


def test_an_engine_is_built_once_for_its_model_shapes_and_precision(opened, calls):
    x = np.ones((1, 2), np.float32)
    for content, batch, options in (
        (model(["n", 2]), 1, {}),
        (model(["n", 2]), 1, {}),
        (model(["n", 2]), 3, {}),
        (model(["n", 2], ("a", "b")), 1, {}),
        (model(["n", 2]), 1, {"precision": "float16"}),
    ):
        session = opened(content, **options)
        session.run([np.repeat(x, batch, 0)] * 2)
        session.block([[np.repeat(x, batch, 0)] * 2], 0, 3)
    builds = [call for call in calls() if "onnx" in call]
    assert [call["shapes"] for call in builds] == ["x:1x2,y:1x2", "x:3x2,y:3x2", "a:1x2,b:1x2", "x:1x2,y:1x2"]
    assert ["fp16" in call for call in builds] == [False, False, False, True]
    assert ["noTF32" in call for call in builds] == [True, True, True, False]
    assert [call.get("sparsity") for call in builds] == [None, None, None, "enable"]
    assert all("skipInference" in call for call in builds)


def test_all_outputs_of_the_model_come_back_in_order(opened):
    three, one = np.full((1, 2), 3, np.float32), np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(opened(model(["n", 2])).run([three, one]), [three - one, one - three])


def test_a_model_of_fixed_shape_is_not_told_its_shape(opened, calls):
    x = np.ones((1, 2), np.float32)
    opened(model([1, 2])).run([x, x])
    assert all("shapes" not in call for call in calls())


def test_a_block_is_one_process_of_so_many_runs(opened, calls):
    x = np.ones((1, 2), np.float32)
    times = opened(model(["n", 2])).block([[x, x]], 0, 7)
    assert len(times) == 7
    assert all(0 < seconds < 1 for seconds in times)
    (timed,) = [call for call in calls() if "exportTimes" in call]
    assert (timed["iterations"], timed["duration"]) == ("7", "0")


def test_the_interface_of_a_model_is_that_which_onnx_reads():
    content = model(["n", 2], ("first", "second"))
    found = interface_of(content)
    assert (found.inputs, found.outputs, found.dynamic) == (("first", "second"), ("twice", "less"), True)
    assert not interface_of(model([1, 2])).dynamic


def test_initializers_are_no_inputs():
    import onnx

    loaded = onnx.load_model_from_string(model([1, 2]))
    loaded.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 2), np.float32), "y"))
    assert interface_of(loaded.SerializeToString()).inputs == ("x",)


@pytest.mark.parametrize("content", [b"", b"this is no model", model([1, 2])[:-9], b"\xff" * 40])
def test_what_is_no_model_has_no_interface(content):
    with pytest.raises(ValueError, match="ONNX model"):
        interface_of(content)
