from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from conftest import make_workload
from nets import images, network
from secateur.compression.groups import find_groups
from secateur.compression.saliency import METHODS, ChannelTensors, available_methods, compute_saliencies
from secateur.errors import WorkloadError


def tensors(**given) -> ChannelTensors:
    empty = {field.name: [] for field in dataclasses.fields(ChannelTensors)} | {"name": "g", "channels": 3}
    return ChannelTensors(**(empty | given))


WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 1.0], [2.0, 2.0]])


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        ("l1", {"producers": [WEIGHT, WEIGHT]}, [14.0, 2.0, 8.0]),
        ("l2", {"producers": [WEIGHT]}, [5.0, 1.0, 8**0.5]),
        ("l2", {"producers": [WEIGHT, WEIGHT]}, [50**0.5, 2**0.5, 4.0]),
        ("next_layer", {"consumers": [WEIGHT], "producers": [10 * WEIGHT.flip(0)]}, [5.0, 1.0, 8**0.5]),
        ("bn_scale", {"scales": [torch.tensor([[-2.0], [1.0], [0.5]])]}, [2.0, 1.0, 0.5]),
        # Distances between the rows: 0–1 √(9+25), 0–2 √(1+36), 1–2 √(4+1).
        ("fpgm", {"producers": [WEIGHT]}, [34**0.5 + 37**0.5, 34**0.5 + 5**0.5, 37**0.5 + 5**0.5]),
        # Energies 25, 1, 8: ascending 1/34, 8/33, 25/25.
        ("lamp", {"producers": [WEIGHT]}, [1.0, 1 / 34, 8 / 33]),
        (
            "taylor",
            {"producers": [WEIGHT], "producers_grad": [torch.tensor([[1.0, 1.0], [5.0, 2.0], [0.0, -3.0]])]},
            [1.0, 2.0, 6.0],
        ),
    ],
)
def test_criteria_by_hand(method, given, expected):
    torch.testing.assert_close(METHODS[method].score(tensors(**given)), torch.tensor(expected))


def test_taylor_is_the_change_of_the_loss_to_first_order():
    """For a loss that is linear in the weights, the first order is everything: removing the channel changes it by the score."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    direction = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    (weight * direction).sum().backward()
    score = METHODS["taylor"].score(tensors(channels=4, producers=[weight.detach()], producers_grad=[weight.grad]))
    for channel in range(4):
        removed = weight.detach().clone()
        removed[channel] = 0
        change = ((weight.detach() - removed) * direction).sum().abs()
        torch.testing.assert_close(score[channel], change)


def test_coupled_layers_are_arranged_by_root_channel():
    """Channel 0 of the stem is channel 4 of the second stage behind a padded shortcut: its weights must count for channel 0."""
    model = network("option-A residual")
    with torch.no_grad():
        model.get_submodule("layer2.0.conv2").weight[4] = 100.0
    groups = find_groups(model, (images(),)).groups
    scores = compute_saliencies(model, groups, ["l1"], make_workload(model))
    assert int(scores["conv1"]["l1"].argmax()) == 0


def test_a_flattened_feature_map_counts_for_its_channel():
    model = network("VGG")
    with torch.no_grad():
        model[5].weight[:, 4 * 7 + 2] = 50.0  # one of the four inputs that channel 7 becomes
    groups = find_groups(model, (images(),)).groups
    scores = compute_saliencies(model, groups, ["next_layer"], make_workload(model))
    assert int(scores["2.0"]["next_layer"].argmax()) == 7


def test_scores_are_finite_and_the_same_every_time(workload):
    model = workload.build_model()
    groups = find_groups(model, workload.example_inputs).groups
    first = compute_saliencies(model, groups, list(METHODS), workload)
    second = compute_saliencies(model, groups, list(METHODS), workload)
    for group in groups:
        assert set(first[group.name]) == set(METHODS)
        for method, scores in first[group.name].items():
            assert scores.shape == (group.width,)
            assert torch.isfinite(scores).all()
            assert (scores >= 0).all()
            torch.testing.assert_close(scores, second[group.name][method])
    assert all(p.grad is None for p in model.parameters())


def test_batch_norm_scales_need_a_batch_norm():
    model = network("sigmoid")
    group = find_groups(model, (images(),)).groups[0]
    assert available_methods(group, ["l1", "bn_scale"]) == ("l1",)


def test_a_loss_that_is_not_finite_is_said(workload):
    model = workload.build_model()
    broken = dataclasses.replace(
        workload, loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets) / 0.0
    )
    groups = find_groups(model, workload.example_inputs).groups
    with pytest.raises(WorkloadError, match="loss of the dense model on calibration batch 0 is inf"):
        compute_saliencies(model, groups, ["taylor"], broken)
