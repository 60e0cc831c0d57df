"""Numbers that are legal in a schema and absurd on this device, with this data."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from secateur.definition import (
    EvaluatorDefinition,
    GatesDefinition,
    PipelineDefinition,
    RecoverDefinition,
    SearchDefinition,
)
from secateur.errors import DefinitionError, EvaluationFailed, MeterFailed, ModelError
from secateur.evaluators.runtimes import host_for
from secateur.pipelines.devices import measure_file
from secateur.pipelines.limits import check_batch, check_gates, check_int8, check_recovery, check_threads
from secateur.pipelines.stages import dense_on
from secateur.records import Group

IMAGE = [torch.zeros(1, 3, 32, 32)]


def evaluator(**settings):
    return EvaluatorDefinition.model_validate({"objectives": {"latency": "minimize"}, **settings})


@pytest.mark.parametrize("settings", [{"threads": 100_000}, {"batch": 1_000_000}, {"threads": 0}, {"batch": 0}])
def test_a_schema_refuses_what_no_device_has(settings):
    with pytest.raises(ValidationError, match="less than or equal|greater than or equal"):
        evaluator(**settings)


@pytest.mark.parametrize("settings", [{"seed": 2**32}, {"seed": -1}, {"workers": 100_000}])
def test_seeds_are_those_that_every_generator_takes(settings):
    with pytest.raises(ValidationError):
        SearchDefinition.model_validate(settings)
    assert SearchDefinition.model_validate({"seed": 2**32 - 1}).seed == 2**32 - 1


def test_threads_are_at_most_the_cores():
    check_threads(evaluator(threads=4), 4, "the device")
    with pytest.raises(DefinitionError, match=r"5 threads, but the device has 4 cores.*At most 4\."):
        check_threads(evaluator(threads=5), 4, "the device")
    assert host_for("onnxruntime", {}, 1024).settings.threads < 1024, "the device's threads are not this host's"


def test_a_batch_is_at_most_the_data_and_what_fits():
    check_batch(evaluator(batch=400), IMAGE, 400)
    with pytest.raises(DefinitionError, match=r"401 samples per run, but the search data holds 400. At most 400\."):
        check_batch(evaluator(batch=401), IMAGE, 400)
    with pytest.raises(DefinitionError, match=r"65536 samples per run take 768 MiB.*At most 21,845\."):
        check_batch(evaluator(batch=65536), IMAGE)


def test_a_folder_and_a_missing_file_are_no_models(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match="is no file: name an exported"):
        measure_file(tmp_path / "folder.onnx", "local", None)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        measure_file(tmp_path / "missing.onnx", "local", None)


@pytest.mark.parametrize(
    ("failure", "expected", "said"),
    [
        (
            MeterFailed("on here: energy_command printed 'much'"),
            DefinitionError,
            "^definition: on here: .*'much'.*must print the joules",
        ),
        (EvaluationFailed("the outputs are not finite"), EvaluationFailed, "^the outputs are not finite$"),
    ],
)
def test_a_meter_that_fails_on_the_dense_model_is_the_definitions_fault(failure, expected, said):
    def measure(*_):
        raise failure

    prepared = SimpleNamespace(
        definition=SimpleNamespace(evaluator=evaluator(energy_command="echo much")),
        evaluator=SimpleNamespace(files=SimpleNamespace(dense=None), everything=["energy"], measure=measure),
    )
    with pytest.raises(expected, match=said):
        dense_on(prepared, "search")


@pytest.mark.parametrize(
    ("settings", "methods", "said"),
    [
        ({"rewind": True}, ["l2"], r"^definition: weights from early in the training.*Give 'build_early'"),
        ({"masks": "movement"}, ["l2", "depth/influence"], r"^definition: 'movement' chooses.*Use one of 'weights/…'"),
        ({"masks": "gradual"}, ["n_m/wanda"], None),
        ({"rewind": True, "early": True}, ["l2"], None),
    ],
)
def test_a_way_to_train_that_lacks_what_it_needs_is_refused_before_the_search(settings, methods, said):
    early = settings.pop("early", False) or None
    allowed = nullcontext() if said is None else pytest.raises(DefinitionError, match=said)
    with allowed:
        check_recovery(RecoverDefinition(**settings), SimpleNamespace(build_early=early), methods)


def test_compiling_without_a_compiler_is_refused_before_the_search(monkeypatch):
    workload = SimpleNamespace(build_early=None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "g++" else None)
    check_recovery(RecoverDefinition(compile=True), workload, ["l2"])
    monkeypatch.setattr("shutil.which", lambda _: None)
    check_recovery(RecoverDefinition(), workload, ["l2"])
    with pytest.raises(
        DefinitionError, match=r"^definition: torch.compile needs a C\+\+ compiler.*leave 'compile' out"
    ):
        check_recovery(RecoverDefinition(compile=True), workload, ["l2"])


def test_gates_need_blocks_and_a_runtime_that_is_tested():
    def wants(runtime):
        return SimpleNamespace(
            recover=RecoverDefinition(gates=GatesDefinition(budget=0.5)),
            evaluator=EvaluatorDefinition(objectives={"accuracy": "maximize", "latency": "minimize"}, runtime=runtime),
        )

    block = Group("layer1.0", "BasicBlock", (), 1, (), 10, 10, block=True)
    check_gates(wants("onnxruntime"), [block])
    with pytest.raises(DefinitionError, match="no residual block"):
        check_gates(wants("onnxruntime"), [])
    with pytest.raises(DefinitionError, match="says openvino"):
        check_gates(wants("openvino"), [block])


@pytest.mark.parametrize(
    ("evaluator", "recover", "reason"),
    [
        ({"runtime": "openvino"}, {}, r"run in onnxruntime on the CPU, and definition says openvino\. Allowed there: \[none\]"),
        ({"runtime_options": {"provider": "cuda"}}, {}, r"run on the CPU, and definition says cuda\. Allowed there: \[none\]"),
        ({}, {"gates": {"budget": 0.5}}, r"ONNX Runtime quantizes nothing\. Allowed with gates: \[none\]"),
        ({}, None, None),
    ],
)  # fmt: skip
def test_int8_needs_a_runtime_that_takes_it_and_layers_that_can_be_seen(evaluator, recover, reason):
    given = {
        "name": "mine",
        "workload": {"factory": "made:made"},
        "search_space": {"groups": [{"methods": ["l2"]}]},
        "evaluator": {"objectives": {"accuracy": "maximize"}, **evaluator},
        "recover": recover,
    }
    check_int8(PipelineDefinition.model_validate(given))
    wanted = PipelineDefinition.model_validate({**given, "quantize": ["none", "int8"]})
    with nullcontext() if reason is None else pytest.raises(DefinitionError, match=reason):
        check_int8(wanted)
