"""Penalties of sparse training: what they add up, and what they do to a network under training."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from conftest import make_workload
from nets import images, network
from secateur.compression.groups import find_groups
from secateur.compression.saliency import compute_saliencies
from secateur.definition import RecoverDefinition, SparseTrainingDefinition
from secateur.recovery import loop
from secateur.recovery.fine_tune import Training, fine_tune, steps_of
from secateur.recovery.sparsity import PENALTIES, penalised, penalty_term, reach

SCORED_AS = {"group_lasso": "l2", "bn_l1": "bn_scale"}
"""The criterion that ranks by what a penalty makes small."""


def sparse(penalty, strength=0.05):
    return SparseTrainingDefinition(penalty=penalty, strength=strength)


@pytest.mark.parametrize("name", ["residual", "option-A residual", "VGG"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_it_is_the_sum_of_the_scores_of_the_channels_that_may_leave(name, penalty):
    model = network(name)
    groups = find_groups(model, (images(),)).groups
    reached = penalised(sparse(penalty), groups, model)
    scores = compute_saliencies(model, groups, [SCORED_AS[penalty]], make_workload(model))
    assert [g.name for g in reached] == [g.name for g in groups if SCORED_AS[penalty] in scores[g.name]]
    expected = sum(scores[g.name][SCORED_AS[penalty]][[*g.removable]].sum() for g in reached)
    found = penalty_term(sparse(penalty), reached, model)
    torch.testing.assert_close(found.of(None).detach(), expected)
    assert found.weight == 0.05


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_channel_of_zeros_has_a_finite_slope(penalty):
    model = network("residual")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[0] = 0.0
    groups = find_groups(model, (images(),)).groups
    penalty_term(sparse(penalty), groups, model).of(None).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_training_makes_channels_smaller_as_far_as_is_said(penalty):
    made = make_workload(network("residual"))
    model, settings = made.build_model(), RecoverDefinition(epochs=2, batch=32, distill=None, weight_decay=0.0)
    groups = find_groups(model, made.example_inputs).groups

    def after(strength):
        term = partial(penalty_term, sparse(penalty, strength), groups)
        tuned = fine_tune(model, model, made, settings, Training(penalty=term)).module
        scores = compute_saliencies(tuned, groups, [SCORED_AS[penalty]], made)
        return torch.cat([scores[g.name][SCORED_AS[penalty]][[*g.removable]] for g in groups])

    shrunk, most = after(1e-9) - after(0.05), reach(0.05, settings.learning_rate, steps_of(made, settings))
    assert 0.5 * most < float(shrunk.mean())
    assert penalty == "bn_l1" or float(shrunk.max()) < 1.2 * most, "of coupled batch norms each shrinks"


def test_what_is_said_is_what_steps_against_nothing_do():
    """One weight, no loss but the penalty: the sum of all steps of the optimizer under the schedule, with its momentum."""
    weight, steps = torch.nn.Parameter(torch.tensor(100.0)), 400
    optimizer = torch.optim.SGD([weight], lr=0.02, momentum=loop.MOMENTUM, nesterov=True)
    for step in range(steps):
        loop._schedule(optimizer, RecoverDefinition(learning_rate=0.02), step / steps)
        optimizer.zero_grad()
        (0.05 * weight.abs()).backward()
        optimizer.step()
    assert 100 - weight.item() == pytest.approx(reach(0.05, 0.02, steps), rel=0.05)
