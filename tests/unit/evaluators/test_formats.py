"""Runtimes that do not read ONNX: the device gets a converted file, and what needs ONNX is refused before any long work."""

from __future__ import annotations

import io

import pytest
import torch

from conftest import REPOSITORY
from nets import images
from secateur.definition import EvaluatorDefinition, PipelineDefinition
from secateur.errors import DefinitionError
from secateur.evaluators import formats
from secateur.pipelines import preparation
from secateur.pipelines.names import check_runtime
from unit.evaluators.test_on_device import evaluator_for


def definition(**settings) -> EvaluatorDefinition:
    objectives = {"accuracy": "maximize", "latency": "minimize"}
    return EvaluatorDefinition.model_validate({"objectives": objectives, **settings})


def test_the_device_gets_the_converted_file_and_the_host_scores_onnx(dense_onnx):
    evaluator = evaluator_for(onnx=dense_onnx, runtime="torch", batch=2)
    assert evaluator.host.runtime == "onnxruntime"
    dense = evaluator.files.dense
    program = torch.export.load(io.BytesIO(dense.file)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(images(2)), (evaluator.model(images(2)),))
    found = evaluator.measure(dense, "search", ["accuracy", "latency", "size"])
    assert found["size"].value == len(dense.file) != len(dense.onnx)
    assert "torch" in found["latency"].device
    assert found["latency"].provenance == "measured"


def test_what_times_operators_needs_onnx():
    with pytest.raises(DefinitionError, match="predictor.*torch reads pt2.*Leave 'predictor' out"):
        check_runtime(definition(runtime="torch", predictor={"models": 12}))


def test_a_converter_that_is_missing_names_its_extra(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    board = {"kind": "ssh", "hosts": ["pi@raspberrypi.local"]}
    with pytest.raises(
        DefinitionError, match=r"models for litert are converted here: .*pip install 'secateur\[litert\]'"
    ):
        check_runtime(definition(runtime="litert", device=board))


def test_steps_of_channels_are_measured_on_onnx_files(workload, monkeypatch):
    monkeypatch.setattr(preparation, "load_workload", lambda *_: workload)
    pipeline = PipelineDefinition.model_validate(
        {
            "name": "tiny",
            "workload": {"factory": "made:made"},
            "search_space": {"groups": [{"methods": ["l2"], "multiple_of": "device"}]},
            "evaluator": {"objectives": {"accuracy": "maximize"}, "runtime": "torch"},
        }
    )
    with pytest.raises(DefinitionError, match=r"'multiple_of: device' is measured on ONNX files.*Give a number"):
        preparation.prepare(pipeline, REPOSITORY)
