from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from conftest import make_workload
from nets import network
from secateur.recovery.statistics import settle
from secateur.workloads.roles import collect


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.fixture
def workload():
    """Labels are those of a network whose batch norms have the statistics of its data."""
    model = network("residual")
    (images,), _ = collect(make_workload(model).data.train)
    for norm in norms(model):
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(images)
    for norm in norms(model):
        norm.momentum = 0.1
    return make_workload(model.eval())


def test_statistics_are_those_of_the_weights_and_nothing_else_changes(workload):
    """The first batch norm's are the mean and variance of what its convolution gives on the training samples."""
    model = workload.build_model()
    first = norms(model)[0]
    first.running_mean.add_(5.0)
    before = copy.deepcopy(model)
    settle(model, workload, 50, "cpu")
    (images,), _ = collect(workload.data.train)
    with torch.no_grad():
        given = model.conv1(images[: len(images) // 50 * 50])
    torch.testing.assert_close(first.running_mean, given.mean((0, 2, 3)), rtol=0.05, atol=0.02)
    torch.testing.assert_close(first.running_var, given.var((0, 2, 3)), rtol=0.1, atol=0.02)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert [norm.momentum for norm in norms(model)] == [norm.momentum for norm in norms(before)]
    assert not any(layer.training for layer in model.modules())


def test_statistics_that_raise_the_loss_are_not_taken(workload):
    """Training samples that are brighter than all others do not stand for them."""
    model = workload.build_model()
    (images,), labels = collect(workload.data.train)
    brighter = replace(workload, data=replace(workload.data, train=TensorDataset(10 * images + 5, labels)))
    before = [buffer.clone() for buffer in model.buffers()]
    settle(model, brighter, 50, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before, strict=True))


def test_a_network_without_batch_norms_is_left_alone():
    settle(nn.Linear(3, 2), make_workload(), 50, "cpu")
