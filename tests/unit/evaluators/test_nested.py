"""Networks that take and return nested tensors, from groups to figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import Tensor, nn

import texts
from conftest import REPOSITORY
from nets import conv_bn, images, shaken
from secateur.agent.latency import Protocol
from secateur.compression.groups import find_groups
from secateur.compression.resolution import resolve
from secateur.compression.saliency import compute_saliencies
from secateur.definition import DistillDefinition, EvaluatorDefinition, RecoverDefinition, SearchSpaceDefinition
from secateur.errors import DefinitionError, WorkloadError
from secateur.evaluators import DenseModel, Evaluator, Place
from secateur.evaluators.devices import open_devices
from secateur.evaluators.on_device import SAMPLED
from secateur.evaluators.onnx_export import export
from secateur.evaluators.onnx_template import OnnxTemplate
from secateur.records import Job, Plan
from secateur.recovery.fine_tune import train_steps
from secateur.recovery.terms import Batch, terms_of, total
from secateur.search_spaces import build_space
from secateur.workloads.inspection import inspect_workload
from secateur.workloads.loading import guarded_workload
from tiny import make_workload


@dataclass
class Heads:
    """As libraries return it."""

    logits: Tensor
    boxes: Tensor
    loss: Tensor | None = None
    features: tuple[Tensor, ...] = ()


class ThreeHeads(nn.Module):
    """Classes, boxes, and what the last layer before them says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 16), conv_bn(16, 16))
        self.between = nn.Linear(16, 12)
        self.classes, self.boxes = nn.Linear(12, 5), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Heads:
        pooled = self.body(x).mean((2, 3))
        hidden = torch.relu(self.between(pooled))
        return Heads(self.classes(hidden), self.boxes(hidden), None, (pooled,))


def workload(model):
    plain = make_workload(nn.Sequential(model.body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval())
    return guarded_workload(
        replace(
            plain,
            build_model=lambda: model,
            loss=lambda outputs, targets: F.cross_entropy(outputs.logits, targets) + outputs.boxes.square().mean(),
        )
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return shaken(ThreeHeads())


TYPES = ["Conv2d", "Linear", "Embedding"]


def evaluator_of(made, model):
    found = find_groups(model, made.example_inputs)
    space = build_space(
        SearchSpaceDefinition.model_validate({"groups": [{"methods": ["taylor", "l2"], "types": TYPES}]}), found
    )
    objectives = {"accuracy": made.score_direction, "latency": "minimize"}
    definition = EvaluatorDefinition.model_validate({"objectives": objectives, "device_samples": 8})
    place = Place(open_devices(definition, REPOSITORY), Protocol(block=2, copies=2, rounds=1))
    evaluator = Evaluator(definition, DenseModel(model, made, found.costs), place)
    return evaluator, space, compute_saliencies(model, space.groups, ["taylor", "l2"], made)


@pytest.fixture(scope="module")
def evaluated(model):
    evaluator, space, saliencies = evaluator_of(workload(model), model)
    yield evaluator, space, saliencies
    evaluator.measuring.devices.close()


def test_channels_that_only_one_of_the_outputs_shows_stay(model):
    found = find_groups(model, (images(),))
    assert [group.name for group in found.groups] == ["body.0.0", "between"]
    assert {entry.name for entry in found.excluded} >= {"body.1.0", "classes", "boxes"}


def test_every_output_is_in_the_file_by_its_name(evaluated):
    evaluator, _, _ = evaluated
    names = ["logits", "boxes", "features_0"]
    dense = onnx.load_model_from_string(evaluator.files.dense.onnx)
    assert [entry.name for entry in dense.graph.output] == names
    assert [entry.name for entry in dense.graph.input] == ["input"]


def test_a_candidate_is_scored_and_measured(evaluated):
    evaluator, space, saliencies = evaluated
    half = space.uniform(0.5, "l2")
    found = evaluator.evaluate(Job(half, resolve(half, space.groups, saliencies)))
    assert found.failure is None
    assert not found.exported
    assert found.measurements["damage"].value > 0.01
    dense = evaluator.evaluate(Job(space.dense(), Plan()))
    assert dense.measurements["damage"].value == pytest.approx(0, abs=1e-6)
    here = evaluator.score(evaluator.files.dense, "search", ["accuracy"])
    assert here.measurements["accuracy"].value == dense.measurements["accuracy"].value
    assert here.scores.samples == len(evaluator.workload.data.search)


def test_the_device_scores_samples_itself(evaluated):
    evaluator, _, _ = evaluated
    found = evaluator.measure(evaluator.files.dense, "search", ["accuracy", SAMPLED])
    assert found[SAMPLED].samples == 8


def test_an_output_that_is_another_in_the_file_is_named(evaluated, model, monkeypatch):
    evaluator, _, _ = evaluated
    file = onnx.load_model_from_string(evaluator.files.dense.onnx)
    (bias,) = (tensor for tensor in file.graph.initializer if tensor.name == "boxes.bias")
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 1).tobytes()
    monkeypatch.setattr(OnnxTemplate, "render", lambda *_: file.SerializeToString())
    evaluator.files.rewritten(model, macs=1)
    assert "outputs 'boxes' of the exported model and of the torch module differ by" in evaluator.files.why_exported


def test_distillation_holds_on_to_the_workloads_output(model):
    made = workload(model)
    x, y = images(4), torch.tensor([0, 1, 2, 3])
    terms = terms_of(made, model, DistillDefinition(temperature=2.0, weight=1.0))
    with torch.no_grad():
        outputs = model(x)
    assert float(total(terms, Batch((x,), outputs, y))) == pytest.approx(0, abs=1e-5)
    other = replace(outputs, logits=-outputs.logits)
    assert float(total(terms, Batch((x,), other, y))) > 0.01
    assert float(total(terms, Batch((x,), replace(outputs, boxes=outputs.boxes + 1), y))) == pytest.approx(0, abs=1e-5)


def test_a_model_that_takes_keywords_goes_all_the_way():
    made = guarded_workload(texts.workload(length=texts.LONGEST))
    model = made.build_model()
    inspected = inspect_workload(made, model)
    assert inspected.looked_at["test"] == (80, 80)
    evaluator, space, saliencies = evaluator_of(made, model)
    dense = onnx.load_model_from_string(evaluator.files.dense.onnx)
    assert [entry.name for entry in dense.graph.input] == ["input_ids", "attention_mask"]
    assert [entry.name for entry in dense.graph.output] == ["logits", "output_attention_mask", "features_0"]
    assert {group.name for group in space.groups} == {"embed", "up"}
    candidate = space.uniform(0.5, "l2")
    found = evaluator.evaluate(Job(candidate, resolve(candidate, space.groups, saliencies)))
    assert found.failure is None
    assert not found.exported
    tuned = train_steps(model, model, made, RecoverDefinition(batch=16), 2)
    assert tuned.stopped is None
    assert not torch.equal(tuned.module.head.weight, model.head.weight)
    evaluator.measuring.devices.close()


def test_axes_that_the_workload_declares_are_free_in_the_file():
    made = guarded_workload(texts.workload())
    model = made.build_model()
    assert inspect_workload(made, model).looked_at["train"] == (80, 80)
    evaluator, space, saliencies = evaluator_of(made, model)
    candidate = space.uniform(0.5, "l2")
    found = evaluator.evaluate(Job(candidate, resolve(candidate, space.groups, saliencies)))
    assert found.failure is None
    assert not found.exported
    assert found.measurements["accuracy"].samples == 80
    compressed = evaluator.compress(candidate, resolve(candidate, space.groups, saliencies))
    exported = evaluator.files.exported(compressed.module, 0)
    for file in (exported.onnx, evaluator.files.rewritten(compressed.module, 0).onnx):
        session = onnxruntime.InferenceSession(file)
        for length in (4, 13):
            ids = torch.randint(1, 40, (3, length))
            mask = (torch.arange(length) < torch.tensor([[2], [3], [length]])).long()
            logits, *_ = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
            with torch.no_grad():
                wanted = compressed.module(input_ids=ids, attention_mask=mask).logits
            torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-4, atol=1e-5)
    assert train_steps(model, model, made, RecoverDefinition(batch=16), 2).stopped is None
    evaluator.measuring.devices.close()


def test_height_and_width_are_free_apart_from_each_other():
    torch.manual_seed(0)
    model = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    content = export(model, (images(),), {"input": {2: "height", 3: "width"}})
    (place,) = onnx.load_model_from_string(content).graph.input
    assert [axis.dim_param for axis in place.type.tensor_type.shape.dim] == ["batch", "", "height", "width"]
    session = onnxruntime.InferenceSession(content)
    x = torch.randn(2, 3, 12, 5)
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], model(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"inputids": {1: "length"}}, "unknown input 'inputids'. Did you mean 'input_ids'"),
        ({"input_ids": {0: "batch"}}, r"give 'input_ids' the axis 0; it is \(2, 9\)"),
        ({"input_ids": {2: "length"}}, "give 'input_ids' the axis 2"),
        ({"input_ids": "length"}, "must be input name → axis → name"),
    ],
)
def test_axes_that_are_not_there_are_refused(axes, words):
    with pytest.raises((WorkloadError, DefinitionError), match=words):
        guarded_workload(replace(texts.workload(), dynamic_axes=axes))


def test_a_classifier_of_transformers_is_evaluated():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(
        vocab_size=texts.WORDS, num_labels=texts.CLASSES, max_position_embeddings=32, **sizes
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    made = guarded_workload(replace(texts.workload(), build_model=lambda: model))
    inspect_workload(made, model)
    evaluator, space, saliencies = evaluator_of(made, model)
    half = space.uniform(0.5, "l2")
    found = evaluator.evaluate(Job(half, resolve(half, space.groups, saliencies)))
    assert found.failure is None
    dense = onnx.load_model_from_string(evaluator.files.dense.onnx)
    assert [entry.name for entry in dense.graph.output] == ["logits"]
    evaluator.measuring.devices.close()
