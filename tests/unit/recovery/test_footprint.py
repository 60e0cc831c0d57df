from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.definition import RecoverDefinition
from secateur.recovery.footprint import FIRST, training_bytes

WEIGHTS = 4 * (6 * 5 + 5 + 5 * 3 + 3)


def model():
    return nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3))


def of(net, samples=100, inputs=None, **settings):
    inputs = torch.zeros(2, 6) if inputs is None else inputs
    return training_bytes(net, inputs, RecoverDefinition(batch=32, **settings), samples) - FIRST


def test_a_forward_pass_keeps_the_input_of_each_layer_once_and_no_weights():
    a_sample = 4 * (6 + 5)  # the sigmoid's output is the next layer's input
    assert of(model(), 100) - of(model(), 16) == a_sample * 16
    assert of(model(), 16) == 12 * WEIGHTS + a_sample * 16


@pytest.mark.parametrize(
    ("settings", "times"),
    [({}, 12), ({"optimizer": "adamw"}, 15), ({"ema": 0.9}, 15), ({"optimizer": "adamw", "ema": 0.9}, 18)],
)
def test_what_is_as_large_as_the_weights_is_counted(settings, times):
    assert of(model(), 1, **settings) == times * WEIGHTS + 4 * 11


def test_shared_and_half_sized_weights_are_taken_as_training_takes_them():
    shared = model()
    shared[0], shared[2] = nn.Linear(6, 6), nn.Linear(6, 6)
    shared[2].weight = shared[0].weight
    assert of(shared, 1) == 12 * 4 * (36 + 6 + 6) + 4 * 12
    assert of(model().half(), 1) == of(model(), 1)


def test_looking_leaves_network_and_random_numbers_as_they_were():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    before, state = {name: t.clone() for name, t in net.state_dict().items()}, torch.get_rng_state()
    of(net, inputs=torch.rand(4, 6, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert not net.training
    assert torch.equal(torch.get_rng_state(), state)


def test_one_example_is_enough_for_a_batch_norm_behind_a_global_pool():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))
    one, two = (of(net, inputs=(torch.zeros(n, 3, 8, 8),)) for n in (1, 2))
    assert one == pytest.approx(two, rel=0.05)
