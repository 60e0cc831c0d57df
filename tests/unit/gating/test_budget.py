from __future__ import annotations

import pytest
import torch

from conftest import make_workload
from nets import images, network
from secateur.compression.costs import layer_costs
from secateur.compression.gates import gated, gated_blocks
from secateur.definition import GatesDefinition, RecoverDefinition
from secateur.gating import Prices, prices_of
from secateur.gating.budget import budget_loss
from secateur.gating.placing import decisions
from secateur.records import Bypass, Plan
from secateur.recovery.fine_tune import fine_tune
from secateur.workloads.roles import collect

GATES = {"layer1.0": 8, "layer1.1": 8, "layer2.1": 16}


def test_prices_are_those_of_the_layers():
    plain = network("residual")
    costs = layer_costs(plain, (images(),))
    prices = prices_of(gated(network("residual"), GATES), (images(),))
    assert prices.blocks == {name: costs.total - costs.after(Plan((Bypass(name),))) for name in GATES}
    assert prices.gates == 8 + 8 + 16
    assert prices.ungated == costs.total
    assert prices.of(["layer1.1"]) == prices.others + 32 + prices.blocks["layer1.1"]


def test_the_loss_is_the_squared_distance_to_the_budget():
    model = gated(network("residual"), GATES).train()
    prices = Prices({"layer1.0": 40, "layer1.1": 0, "layer2.1": 20}, 10, 40)
    for name, chance in zip(GATES, (0.5, 0.9, 0.0), strict=True):
        model.get_submodule(name).opened = torch.tensor([0.0, 2 * chance])
    loss = budget_loss(model, prices, 0.5)
    assert loss.item() == pytest.approx((0.7 - 0.5) ** 2)  # (40 + 10 + 0.5 · 40) / 100
    assert all(block.opened is None for block in gated_blocks(model).values())
    assert prices.average({name: torch.tensor([True, False]) for name in GATES}) == pytest.approx(80)


def test_training_brings_gates_to_their_budget():
    teacher = network("residual")
    workload = make_workload(teacher)
    student = gated(network("residual"), GATES)
    settings = RecoverDefinition(epochs=6, batch=32, learning_rate=0.05, gates=GatesDefinition(budget=0.6))
    tuned = fine_tune(student, teacher, workload, settings)
    (x,), _ = collect(workload.data.selection)
    prices = prices_of(tuned.module, workload.example_inputs)
    assert tuned.stopped is None
    assert prices.average(decisions(student, x)) / prices.ungated > 1
    assert prices.average(decisions(tuned.module, x)) / prices.ungated < 0.8
