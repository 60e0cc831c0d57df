"""What NNI's own pruners mask in a network, wrapped and coupled their way, is what our criteria of their names remove from it."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch

from conftest import make_workload
from nets import images, network
from secateur.compression.criteria.channel_tensors import WRITING
from secateur.compression.groups import find_groups
from secateur.compression.masks import by_row
from secateur.compression.resolution import resolve
from secateur.compression.saliency import BATCH, BATCHES, backward_passes, compute_saliencies
from secateur.compression.weight_saliency import weight_saliencies
from secateur.definition import PipelineDefinition
from secateur.errors import DefinitionError
from secateur.pipelines.names import check_names
from secateur.records import Candidate, Edit, Remove
from secateur.testing.examples import workload

pytest.importorskip("nni", reason="the extra nni is not installed")


@pytest.fixture(scope="module")
def example():
    made = workload()
    return made, find_groups(made.build_model(), made.example_inputs).groups


def pruner(name, model, groups, sparsity, made):
    """NNI's, on the layers that write each group, which it masks together."""
    import nni
    from nni.compression import TorchEvaluator, pruning

    config = [
        {
            "op_names": [m.module for m in group.members if m.side == "out" and m.kind in WRITING],
            "sparse_ratio": sparsity,
            "dependency_group_id": group.name,
        }
        for group in groups
    ]
    if name != "Taylor":
        return getattr(pruning, f"{name}Pruner")(model, config)
    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=0.0)

    def training(model, optimizers, *_args, **_kwargs):
        for _ in backward_passes(model, made, BATCH * BATCHES, BATCH):
            optimizers.step()

    evaluator = TorchEvaluator(training, optimizer, made.loss)
    steps = -(-min(BATCH * BATCHES, len(made.data.calibration)) // BATCH)
    return pruning.TaylorPruner(model, config, evaluator, training_steps=steps)


@pytest.mark.parametrize("sparsity", [0.25, 0.5])
@pytest.mark.parametrize(
    ("criterion", "name"), [("nni_l1", "L1Norm"), ("nni_l2", "L2Norm"), ("nni_fpgm", "FPGM"), ("nni_taylor", "Taylor")]
)
def test_what_nni_masks_is_what_leaves(example, criterion, name, sparsity):
    made, groups = example
    wrapped = pruner(name, copy.deepcopy(made.build_model()), groups, sparsity, made)
    _, masks = wrapped.compress()
    scores = compute_saliencies(made.build_model(), groups, [criterion], made)
    edits = {g.name: (Edit("channels", g.width - int(g.width * sparsity), criterion),) for g in groups}
    removed = {
        step.layer: step.indices
        for step in resolve(Candidate.of(edits), groups, scores).steps
        if isinstance(step, Remove) and step.side == "out" and step.layer in masks
    }
    assert removed.keys() == masks.keys()
    for layer, gone in removed.items():
        masked = (masks[layer]["weight"].flatten(1) == 0).all(1).nonzero().flatten()
        assert masked.tolist() == sorted(gone)


def test_what_nni_masks_of_single_weights_becomes_zero(example):
    from nni.compression.pruning import LevelPruner

    made, groups = example
    config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.6}]
    _, masks = LevelPruner(copy.deepcopy(made.build_model()), config).compress()
    scores = weight_saliencies(made.build_model(), groups, ["nni_level"], made, {})
    compared = 0
    for group in groups:
        places = scores[group.name]["weights/nni_level"].split(
            [len(w.rows) * w.inputs * w.kernel for w in group.weights]
        )
        for weights, own in zip(group.weights, places, strict=True):
            masked = (
                by_row(made.build_model().get_submodule(weights.layer), masks[weights.layer]["weight"]).flatten() == 0
            )
            assert torch.equal(masked, torch.zeros_like(masked).index_fill(0, own.argsort()[: int(masked.sum())], 1))
            compared += 1
    assert compared > len(groups)


def test_a_filter_that_a_padded_shortcut_lacks_is_no_neighbour_of_others():
    model = network("option-A residual")
    groups = find_groups(model, (images(),)).groups
    scores = compute_saliencies(model, groups, ["fpgm", "nni_fpgm"], make_workload(model))
    for group in groups:
        ours, theirs = scores[group.name]["fpgm"], scores[group.name]["nni_fpgm"]
        writers = sum(m.side == "out" and m.kind in WRITING for m in group.members)
        torch.testing.assert_close(theirs * writers, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["nni_fpgm", "weights/nni_level"])
def test_the_extra_is_asked_for_before_anything_is_loaded(monkeypatch, method):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "nni" else real(name, *a))
    definition = PipelineDefinition.model_validate(
        {
            "name": "x",
            "workload": {"factory": "secateur.workloads.digits:workload"},
            "search_space": {"groups": [{"methods": ["l1", method]}]},
            "evaluator": {"objectives": {"accuracy": "maximize"}},
        }
    )
    with pytest.raises(DefinitionError, match=f"'{method}' needs the extra nni: pip install 'secateur\\[nni\\]'"):
        check_names(definition, None)
