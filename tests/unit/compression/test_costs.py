from __future__ import annotations

import pytest
import torch
from torch import nn

from nets import NETWORKS, images, network
from secateur.compression.costs import layer_costs, parameter_count, parameters_after, within_reach
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.workloads.resnet import cifar_resnet


def test_resnet20_has_the_published_costs():
    model = cifar_resnet(20)
    # He et al. 2015, table 6: 0.27 M parameters; 40.55 M multiply-accumulates is the usual count for this network.
    assert parameter_count(model) == pytest.approx(0.27e6, rel=0.01)
    assert layer_costs(model, (torch.randn(2, 3, 32, 32),)).total == 40_551_040


def test_a_convolution_and_a_linear_layer_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 5))
    costs = layer_costs(model, (images(),))
    assert costs.layers == {"0": 64 * 4 * 3 * 9, "2": 4 * 64 * 5}
    assert costs.other == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_after_a_cut_are_those_counted_on_the_cut_network(name):
    model = network(name)
    found = find_groups(model, (images(),))
    plan = without(found.groups, {g.name: g.removable[::2] for g in found.groups})
    smaller = apply(model, plan)
    assert found.costs.after(plan) == layer_costs(smaller, (images(),)).total
    assert parameters_after(model, plan) == parameter_count(smaller)


def test_what_is_within_reach_is_what_groups_touch():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(128, 5))
    found = find_groups(model, (images(),))
    assert within_reach(model, found.groups, found.costs) == (1, 1)
    first = [group for group in found.groups if group.name == "0"]
    parameters, macs = within_reach(model, first, found.costs)
    assert parameters == pytest.approx((16 + 10) / (16 + 10 + 645))
    assert macs == pytest.approx(64 * (12 + 8) / (64 * (12 + 8) + 640))
    assert within_reach(model, [], found.costs) == (0, 0)
